"""A node takes over the keys of the database: at once, without reading them again and again, and never none."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import MemoryLog, Wire, make_ties

from gateway.auth.tokens import Keyring, generate_signing_key
from gateway.closing import TOKEN_REVOKED
from gateway.connection import Connection
from gateway.errors import StoreUnavailable, TokenInvalid
from gateway.hub import Hub
from gateway.model import Claims, Principal, SigningKey
from gateway.rotation import Rotation

NOW = 1_000_000.0


class Store:
    def __init__(self, *keys: SigningKey) -> None:
        self.keys, self.down, self.read = list(keys), False, 0

    async def announced(self) -> list[tuple[str, int]]:
        if self.down:
            raise StoreUnavailable
        return [(key.kid, key.signs_from) for key in self.keys]

    async def signing(self) -> list[SigningKey]:
        self.read += 1
        return list(self.keys)


class House:
    def __init__(self, *keys: SigningKey) -> None:
        self.store, self.hub = Store(*keys), Hub(node="n", per_user=9, per_address=0, most=9)
        self.keyring = Keyring(keys, issuer="i", audience="a", max_ttl=900, leeway=0)
        store: Any = self.store
        self.rotation = Rotation(store=store, keyring=self.keyring, hub=self.hub)

    def token(self) -> str:
        return self.keyring.sign(
            subject="ada", client_id="c~gateway", scopes=frozenset({"inbox"}), session="s", token_id="t", now=NOW, ttl=9
        )

    def claims(self, token: str) -> Claims:
        return self.keyring.verify(token, now=NOW)

    def connected(self, token: str) -> Wire:
        wire, ties = Wire(), make_ties(MemoryLog("ada"), hub=self.hub)
        Connection(Principal(self.claims(token)), ties=ties, address=None, after=None).attach(wire)
        return wire


def key(now: float = NOW) -> SigningKey:
    return generate_signing_key(now)


async def test_TOK_17_a_retired_key_takes_its_tokens_and_its_sockets_along_and_no_others() -> None:
    house = House(old := key(NOW - 1))
    await house.rotation.look()
    of_old = house.token()
    house.store.keys.append(key())
    await house.rotation.look()
    of_new = house.token()
    assert house.claims(of_old).kid == old.kid != house.claims(of_new).kid
    gone, kept = house.connected(of_old), house.connected(of_new)
    house.store.keys.remove(old)
    assert house.claims(of_old), "remembered as verified"
    await house.rotation.look()
    with pytest.raises(TokenInvalid):
        house.claims(of_old)
    assert (gone.ended, kept.ended) == ([TOKEN_REVOKED], [])
    assert house.claims(of_new)


async def test_TOK_17_a_key_is_retired_also_beside_one_that_cannot_be_used() -> None:
    """A newer gateway may have left one of a kind that this one does not know."""
    house = House(old := key(NOW - 1), key())
    of_old = Keyring([old], issuer="i", audience="a", max_ttl=900, leeway=0).sign(
        subject="ada", client_id="c~gateway", scopes=frozenset({"inbox"}), session="s", token_id="t", now=NOW, ttl=9
    )
    assert house.claims(of_old)
    house.store.keys.append(SigningKey("newer", "EdDSA", "material", signs_from=0))
    await house.rotation.look()
    assert house.claims(of_old)
    house.store.keys.remove(old)
    await house.rotation.look()
    with pytest.raises(TokenInvalid):
        house.claims(of_old)
    assert house.claims(house.token())


async def test_TOK_17_keys_are_read_when_they_changed_and_else_only_counted() -> None:
    house = House(key())
    for _ in range(5):
        await house.rotation.look()
    assert house.store.read == 1
    house.store.keys.append(key(NOW + 600))
    await house.rotation.look()
    await house.rotation.look()
    assert house.store.read == 2
    assert len(house.keyring.kids) == 2


async def test_TOK_17_a_node_that_cannot_read_the_keys_or_use_them_keeps_what_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House(key(NOW - 1))
    await house.rotation.look()
    token = house.token()
    wire = house.connected(token)
    house.store.down = True
    with pytest.raises(StoreUnavailable):
        await house.rotation.look()
    house.store.down = False
    for keys in ([], [SigningKey("k", "ES256", "no PEM", 5)]):
        house.store.keys = list(keys)
        await house.rotation.look()
        await house.rotation.look()
    assert house.claims(token)
    assert wire.ended == []
    complaints = [record.message for record in caplog.records]
    assert [text.partition("those of before stay: ")[2] for text in complaints] == [
        "there is no signing key",
        "signing key 'k': key is not a private key in PEM form",
    ]


def test_a_connection_holds_the_text_of_its_key_and_no_copy() -> None:
    house = House(key())
    first, second = house.claims(house.token()), house.claims(house.token())
    assert first.kid is second.kid
