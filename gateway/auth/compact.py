"""The outside of a signed JWT: three parts of strict base64url, JSON without a member twice. Verifies no signature.

What python-jose forgives here, nobody who calls this does (RFC 7515 section 3.1, RFC 8725 section 3).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from gateway.errors import TokenInvalid

SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
LATEST = 1 << 33
"""A NumericDate beyond the year 2242 is not one."""


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` that refuses a member that stands twice: two readers would see two values."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def no_constant(constant: str) -> NoReturn:
    """A ``parse_constant`` that refuses NaN and the infinities: they are not JSON."""
    raise ValueError(f"{constant} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=unique_members, parse_constant=no_constant)


def decoded(part: str) -> bytes:
    """The bytes of one part. Raises TokenInvalid for a spelling that is not the one RFC 4648 section 3.5 asks for."""
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode("ascii"):
        raise TokenInvalid("base64")  # spare bits set: the same token in another spelling
    return raw


def members(raw: bytes) -> dict[str, Any]:
    """The JSON object that ``raw`` is. Raises TokenInvalid, ValueError, or RecursionError if it is nested too deep."""
    value = _JSON.decode(raw.decode())
    if not isinstance(value, dict):
        raise TokenInvalid("json")
    return value


def date(claims: Mapping[str, Any], name: str) -> int:
    """A NumericDate in whole seconds. Raises TokenInvalid for anything else, KeyError if there is none."""
    value = claims[name]
    if type(value) is not int or not 0 < value < LATEST:  # a bool is an int to isinstance
        raise TokenInvalid(name)
    return value
