"""Bytes → a JSON value that every JSON implementation reads the same way, or why not. No HTTP, no schema.

Stricter than RFC 8259 where that leaves two readers room to differ (I-JSON, RFC 7493): UTF-8 only, no member twice, no
NaN or infinity, no number beyond a double, no integer beyond 2^53-1, no lone surrogate, no NUL, at most 32 levels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from gateway.errors import Invalid

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
MAX_TROUBLES = 20
"""So many are told at most: a body made of nothing but trouble must not get an answer many times its size."""

Path = tuple[str | int, ...]

_INTEGER_RANGE = "integers lie between -(2^53-1) and 2^53-1"
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""NUL and surrogates can only come in as escapes: the raw bytes are UTF-8, and a raw NUL is a control character."""

_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_STRING = re.compile(rb'"[^"]*"')


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the parsed value where something stood that cannot be taken."""

    detail: str


class _Trouble(Exception):
    """The quick reading met something it refuses; the slow one says where."""


def strict_json(raw: bytes) -> Any:
    """The value of ``raw``. Raises Invalid, and nothing else, with a pointer to each member that cannot be taken."""
    value, troubles = parse(raw)
    if troubles:
        raise Invalid(errors=[(pointer(path), detail) for path, detail in troubles])
    return value


def parse(raw: bytes) -> tuple[Any, list[tuple[Path, str]]]:
    """The value of ``raw``, and what in it cannot be taken: (path, detail). Raises Invalid if it is not JSON at all.

    What lies at a path in the list must not be used. Recursion is bounded before it begins.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Invalid("The body is not UTF-8.", code="invalid_json") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deep(raw):
        raise Invalid(errors=[("", f"nested deeper than {MAX_DEPTH} levels, or brackets that do not match")])
    try:
        value = _QUICK.decode(text)
    except _Trouble:
        return (value := _decode(_SLOW, text)), list(_troubles(value))
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    if _SUSPECT_ESCAPE.search(raw):
        return value, list(_troubles(value))
    return value, []


def pointer(path: Path) -> str:
    """``path`` as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None


def _not_json(error: json.JSONDecodeError) -> Invalid:
    return Invalid(f"The body is not JSON: {error.msg} at character {error.pos}.", code="invalid_json")


def _deep(raw: bytes) -> bool:
    """Whether the brackets nest deeper than MAX_DEPTH or do not match. Linear in C, no recursion, no Python loop."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = raw.translate(_BRACKETS, _ALL_BUT_STRUCTURE).replace(b'""', b"")
    if b'"' in structure:
        structure = _STRING.sub(b"", structure)
    for _ in range(MAX_DEPTH):
        before = len(structure)
        structure = structure.replace(b"[]", b"")  # peels off exactly the innermost level
        if len(structure) == before:
            break
    return bool(structure)


def _troubles(value: Any) -> Iterator[tuple[Path, str]]:
    """Where ``value`` holds something refused, in the order of the text, MAX_TROUBLES at most."""
    told = 0
    walks: list[Iterator[tuple[Path, Any]]] = [iter((((), value),))]
    while walks and told < MAX_TROUBLES:
        step = next(walks[-1], None)
        if step is None:
            walks.pop()
            continue
        path, node = step
        detail = None
        if isinstance(node, _Refused):
            detail = node.detail
        elif isinstance(node, str):
            detail = _bad_text(node)
        else:
            if isinstance(node, dict):
                detail = next((f"a member name: {bad}" for name in node if (bad := _bad_text(name))), None)
            walks.append(_walk(path, node))
        if detail is not None:
            told += 1
            yield path, detail


def _walk(path: Path, node: object) -> Iterator[tuple[Path, Any]]:
    """What lies in ``node`` and could be refused: two megabytes can hold a million numbers that cannot."""
    members: Iterable[tuple[str | int, Any]] = ()
    if isinstance(node, dict):
        members = node.items()
    elif isinstance(node, list):
        members = enumerate(node)
    for at, child in members:
        if isinstance(child, (str, dict, list, _Refused)):
            yield (*path, at), child


def _bad_text(text: str) -> str | None:
    if "\0" in text:
        return "NUL cannot be taken"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate is not text"
    return None


# -- two decoders with the same rules: one stops at the first trouble, the other marks them all --------------------


def _quick_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Trouble
    return members


def _quick_int(digits: str) -> int:
    if len(digits) <= 17 and -MAX_INTEGER <= (value := int(digits)) <= MAX_INTEGER:
        return value
    raise _Trouble


def _quick_float(digits: str) -> float:
    value = float(digits)
    if value - value != 0:  # infinite: 1e999
        raise _Trouble
    return value


def _quick_constant(name: str) -> NoReturn:
    raise _Trouble


def _slow_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        members[name] = _Refused("stands more than once") if name in members else value
    return members


def _slow_int(digits: str) -> int | _Refused:
    try:
        return _quick_int(digits)
    except _Trouble:
        return _Refused(_INTEGER_RANGE)


def _slow_float(digits: str) -> float | _Refused:
    try:
        return _quick_float(digits)
    except _Trouble:
        return _Refused("too large for a number")


def _slow_constant(name: str) -> _Refused:
    return _Refused(f"{name} is not JSON")


_QUICK = json.JSONDecoder(
    object_pairs_hook=_quick_members,
    parse_int=_quick_int,
    parse_float=_quick_float,
    parse_constant=_quick_constant,
)
_SLOW = json.JSONDecoder(
    object_pairs_hook=_slow_members,
    parse_int=_slow_int,
    parse_float=_slow_float,
    parse_constant=_slow_constant,
)
