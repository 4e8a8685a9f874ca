"""What the URL of a PostgreSQL database says about TLS: heeded as libpq heeds it, or refused. Connects to nothing."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from gateway.store.errors import StoreError
from gateway.store.postgres.connecting import _tls

AUTHORITY = "/etc/authority.pem"


def tls(mode: str | None, authority: str | None = None) -> Any:
    given = {"sslmode": mode, "sslrootcert": authority}
    return _tls({name: value for name, value in given.items() if value is not None}).get("ssl")


def test_without_a_word_the_driver_decides_and_a_mode_is_handed_on() -> None:
    assert [tls(mode) for mode in (None, "disable", "require")] == [None, "disable", "require"]


@pytest.mark.parametrize(
    ("mode", "names_too"), [("verify-full", True), ("verify-ca", False), ("require", False), (None, True)]
)
def test_an_authority_that_is_named_is_asked(
    mode: str | None, names_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _, cafile, *more: asked.append(cafile))
    context = tls(mode, AUTHORITY)
    assert (context.verify_mode, context.check_hostname, asked) == (ssl.CERT_REQUIRED, names_too, [AUTHORITY])


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_an_authority_that_would_not_be_asked_is_refused(mode: str) -> None:
    with pytest.raises(StoreError, match="sslrootcert"):
        tls(mode, AUTHORITY)
