"""Which other issuers are trusted, and with what: read from a setting, refused when unsafe. Fetches nothing."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.auth.compact import no_constant, unique_members

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
"""Public keys only: whoever verifies HS256 could sign as well."""
USUAL = ("RS256", "ES256")
MOST = 50
"""Issuers in the setting."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """Whose tokens become sessions here. ``claim`` names the member that says who somebody is.

    ``create``: who was never seen before gets a user. ``link``: a user (never an admin) who is there already under that
    id is taken to be the same person.
    """

    issuer: str
    jwks_url: str
    audience: str
    claim: str = "sub"
    algorithms: tuple[str, ...] = USUAL
    create: bool = False
    link: bool = False
    username_claim: str = "preferred_username"


_TEXTS = ("issuer", "jwks_url", "audience", "claim", "username_claim")
_SWITCHES = ("create", "link")
_NEEDED = ("issuer", "jwks_url", "audience")
_MEMBERS = ("issuer", "jwks_url", "audience", "claim", "algorithms", "create", "link", "username_claim")


def parse_trusted_issuers(text: str) -> dict[str, TrustedIssuer]:
    """The issuers of ``GATEWAY_TRUSTED_ISSUERS``, a JSON list of objects with the members of TrustedIssuer, by name.

    Raises ValueError with a text that says which entry is wrong, which member of it, and how.
    """
    try:
        listed = json.loads(text, object_pairs_hook=unique_members, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not a JSON list of objects: {error}") from None
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise ValueError("is not a JSON list of objects")
    if len(listed) > MOST:
        raise ValueError(f"holds {len(listed)} issuers, more than {MOST}")
    found: dict[str, TrustedIssuer] = {}
    for position, item in enumerate(listed, 1):
        made = _issuer(item, f"entry {position}")
        if made.issuer in found:
            raise ValueError(f"entry {position}: issuer: {made.issuer!r} stands in an earlier entry too")
        found[made.issuer] = made
    return found


def _issuer(item: Mapping[str, Any], named: str) -> TrustedIssuer:
    for name in item:
        if name not in _MEMBERS:
            raise ValueError(f"{named}: {name!r} is not a member; those are {', '.join(_MEMBERS)}")
    for name in _NEEDED:
        if name not in item:
            raise ValueError(f"{named}: {name}: is missing")
    for name in _TEXTS:
        value = item.get(name, "default")
        if not isinstance(value, str) or not 1 <= len(value) <= 1024 or not value.isprintable():
            raise ValueError(f"{named}: {name}: must be a text of 1 to 1024 printable characters")
    for name in _SWITCHES:
        if not isinstance(item.get(name, False), bool):
            raise ValueError(f"{named}: {name}: must be true or false")
    _check_url(item["jwks_url"], f"{named}: jwks_url")
    return TrustedIssuer(**{**item, "algorithms": _algorithms(item, f"{named}: algorithms")})


def _algorithms(item: Mapping[str, Any], named: str) -> tuple[str, ...]:
    given = item.get("algorithms", list(USUAL))
    # A list, and nothing that is not in it: python-jose would look for the word inside a text.
    if not isinstance(given, list) or not given or any(one not in ALGORITHMS for one in given):
        raise ValueError(f"{named}: must be a list of {', '.join(ALGORITHMS)}")
    return tuple(given)


def _check_url(url: str, named: str) -> None:
    """Keys that came over plain HTTP are anybody's: only from this machine itself."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{named}: is not a URL") from None
    if not host or not url.isascii() or " " in url or parts.fragment:
        raise ValueError(f"{named}: is not a URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{named}: must hold no user name or password")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError(f"{named}: must begin with https:// (http:// only for loopback)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
