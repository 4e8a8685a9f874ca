"""What ``strict_json`` takes is the same value for every reader; anything else is Invalid, always (API-11)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.strict import MAX_DEPTH, MAX_INTEGER, parse, strict_json
from gateway.errors import Invalid

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(one) for one in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(one) for one in value), default=0)
    return 0


def nested(levels: int, *, inner: str = "", kind: str = "[]") -> bytes:
    opening, closing = ("[", "]") if kind == "[]" else ('{"a":', "}")
    return (opening * levels + (inner or ("1" if kind == "{}" else "")) + closing * levels).encode()


def refusal(raw: bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        strict_json(raw)
    return caught.value


@settings(deadline=None)
@given(values, st.booleans())
def test_every_value_comes_through_unchanged_however_it_was_escaped(value: Any, ascii_only: bool) -> None:
    assert strict_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@settings(deadline=None)
@given(values)
def test_what_is_taken_renders_to_the_same_bytes_again(value: Any) -> None:
    raw = orjson.dumps(value)
    assert orjson.dumps(strict_json(raw)) == raw


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_invalid(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        strict_json(raw)


@settings(deadline=None)
@given(st.text('{}[]",:\\1eE+-.ntu0aN', max_size=60))
def test_anything_that_looks_like_json_is_a_value_or_invalid(raw: str) -> None:
    try:
        value = strict_json(raw.encode())
    except Invalid:
        return
    assert value == json.loads(raw)


@settings(deadline=None)
@given(values, st.integers(0, 40), st.text('{}[]"\\', max_size=10))
def test_nesting_is_counted_outside_strings_only(value: Any, levels: int, noise: str) -> None:
    for _ in range(levels):
        value = {noise: value, "noise": noise}
    raw = json.dumps(value).encode()
    if depth(value) > MAX_DEPTH:
        assert "nested" in refusal(raw).errors[0][1]
    else:
        assert strict_json(raw) == value


@pytest.mark.parametrize("kind", ["[]", "{}"])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1000, 100_000, 500_000])
def test_deep_nesting_is_refused_without_recursion(kind: str, levels: int) -> None:
    refusal(nested(levels, kind=kind))


@pytest.mark.parametrize("raw", [b"[" * 500_000, b'{"a":' * 200_000, b"]" * 40 + b"[" * 40, b'["' + b"[" * 100])
def test_brackets_that_never_close_are_refused(raw: bytes) -> None:
    refusal(raw)


@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_32_levels_are_taken(kind: str) -> None:
    assert depth(strict_json(nested(MAX_DEPTH, kind=kind))) == MAX_DEPTH


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (rb'{"a":1,"a":2}', "/a"),
        (rb'{"x":[0,{"b":1,"b":1}]}', "/x/1/b"),
        (rb'{"\u0061":1,"a":2}', "/a"),
        (rb'{"a":NaN}', "/a"),
        (rb'{"a":[-Infinity]}', "/a/0"),
        (rb'{"a":1e999}', "/a"),
        (rb'{"a":-1e400}', "/a"),
        (rb'{"a":9007199254740992}', "/a"),
        (rb'{"a":-9007199254740992}', "/a"),
        (b'{"a":' + b"9" * 5000 + b"}", "/a"),
        (rb'{"a":"\ud800"}', "/a"),
        (rb'{"a":"x\udc00\ud800"}', "/a"),
        (rb'{"a":"\u0000"}', "/a"),
        (rb'{"a":{"\u0000":1}}', "/a"),
        (rb'{"a":{"\ud800":1}}', "/a"),
        (rb'{"a/b":{"c~d":NaN}}', "/a~1b/c~0d"),
        (rb'"\u0000"', ""),
    ],
)
def test_what_readers_would_differ_on_is_refused_where_it_stands(raw: bytes, where: str) -> None:
    assert [pointer for pointer, _ in refusal(raw).errors] == [where]


def test_every_trouble_is_told_in_the_order_of_the_text_and_no_more_than_20() -> None:
    raw = rb'{"a":NaN,"b":[1e999,"\u0000"]}'
    assert [path for path, _ in parse(raw)[1]] == [("a",), ("b", 0), ("b", 1)]
    assert len(refusal(b"[" + b",".join([b"NaN"] * 1000) + b"]").errors) == 20


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"nope", b"{", b'{"a":1,}', b"{'a':1}", b'"\xff"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}", b'"\n"']
)
def test_what_is_no_json_or_no_utf8_is_said_to_be_so(raw: bytes) -> None:
    assert refusal(raw).code == "invalid_json"


@pytest.mark.parametrize(
    "raw", [rb'"\ud83d\ude00"', rb'"\\u0000"', rb'"\\ud800"', b"9007199254740991", b"-0.0", b"1e308"]
)
def test_what_only_looks_suspect_is_taken(raw: bytes) -> None:
    assert strict_json(raw) == json.loads(raw)
