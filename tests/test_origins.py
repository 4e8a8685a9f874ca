"""The rule for Origin, and when a cookie counts, without a wire: every spelling that has to match or must not."""

from __future__ import annotations

import pytest

from gateway.cookies import ACCESS, REFRESH, from_own_page, presented, setting
from gateway.errors import CredentialsConflict, OriginRefused
from gateway.origins import Origins, origin_of, same_origin

LISTED = Origins(["https://app.example", "https://app.example:8443"])
ALL = Origins(["*", "https://app.example"])
Headers = list[tuple[bytes, bytes]]


def request(*fields: str) -> Headers:
    pairs = [field.split(": ", 1) for field in ("host: gw.example", *fields)]
    return [(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize(
    "origin", ["https://app.example", "https://app.example:8443", "https://gw.example", "https://gw.example:8000"]
)
def test_WSH_04_a_listed_origin_and_the_own_one_match(origin: str) -> None:
    host = "gw.example:8000" if origin.endswith("8000") else "gw.example"
    for scheme in ("https", "wss"):
        assert LISTED.allowed(origin, scheme, host)
        assert LISTED.trusted(origin, scheme, host)


@pytest.mark.parametrize(
    "origin",
    [
        "", "null", "*", "https://evil.example", "https://app.example.evil.example", "https://app.exampl",
        "https://app.example/", "https://app.example:443", "https://app.example:84433", "HTTPS://APP.EXAMPLE",
        "http://app.example", "http://gw.example", "https://gw.example:8443", "https://gw.example.", "https://GW.example",
        "https://app.example, https://app.example",
    ],
)  # fmt: skip
def test_WSH_04_nothing_else_does(origin: str) -> None:
    assert not LISTED.allowed(origin, "wss", "gw.example")
    assert ALL.allowed(origin, "wss", "gw.example")
    assert not ALL.trusted(origin, "wss", "gw.example"), "a star does not count for cookies"


def test_the_own_origin_is_one_in_every_spelling_of_the_host() -> None:
    assert same_origin("https://gw.example", "wss", "GW.example:443")
    assert same_origin("http://gw.example", "ws", "gw.example:80")
    assert same_origin("http://[::1]:8000", "http", "[::1]:8000")
    assert not same_origin("https://gw.example", "wss", "gw.example:80")
    assert not same_origin("https://", "wss", "")
    assert not same_origin("https://gw.example", "wss", None)


def test_no_origin_is_no_page_and_two_are_none_that_matches() -> None:
    assert LISTED.allowed(None, "wss", "gw.example")
    assert origin_of(request()) is None
    twice = origin_of(request("origin: https://app.example", "origin: https://app.example"))
    assert not LISTED.allowed(twice, "wss", "gw.example")


def test_a_page_of_another_origin_may_use_no_cookie() -> None:
    for origin in ("https://evil.example", "null", "", "http://gw.example"):
        with pytest.raises(OriginRefused):
            from_own_page(request(f"origin: {origin}", "sec-fetch-site: same-origin"), "https", LISTED)
        with pytest.raises(OriginRefused):
            from_own_page(request(f"origin: {origin}"), "https", ALL)
    for origin in ("https://app.example", "https://gw.example"):
        assert from_own_page(request(f"origin: {origin}"), "https", LISTED)


def test_without_an_origin_the_browser_has_to_say_that_it_is_the_same() -> None:
    assert from_own_page(request("sec-fetch-site: same-origin"), "https", LISTED)
    for said in ((), ("none",), ("same-site",), ("cross-site",), ("Same-Origin",), ("same-origin", "same-origin")):
        assert not from_own_page(request(*(f"sec-fetch-site: {word}" for word in said)), "https", LISTED), said


def test_which_cookie_is_presented() -> None:
    own = "origin: https://gw.example"
    pairs = f"cookie: a=b; {ACCESS}=one; {REFRESH}=two;c"
    assert presented(ACCESS, request(own, pairs), "https", LISTED) == "one"
    assert presented(REFRESH, request(own, pairs), "https", LISTED) == "two"
    assert (
        presented(ACCESS, request(own, f"cookie: x{ACCESS}=1; {ACCESS}x=2; {ACCESS.lower()}=3"), "https", LISTED)
        is None
    )
    assert presented(ACCESS, request(own, f"cookie: {ACCESS}="), "https", LISTED) is None
    assert presented(ACCESS, request(pairs), "https", LISTED) is None
    for twice in ([f"cookie: {ACCESS}=1; {ACCESS}=1"], [f"cookie: {ACCESS}=1", f"cookie: {ACCESS}=2"]):
        with pytest.raises(CredentialsConflict):
            presented(ACCESS, request(own, *twice), "https", LISTED)


def test_beside_other_credentials_a_cookie_that_may_not_count_is_as_if_it_were_not_there() -> None:
    foreign = request("origin: https://evil.example", f"cookie: {ACCESS}=one; {ACCESS}=two")
    assert presented(ACCESS, foreign, "https", ALL, alone=False) is None
    with pytest.raises(OriginRefused):
        presented(ACCESS, foreign, "https", ALL)


def test_a_cookie_is_set_for_this_host_alone_and_no_script() -> None:
    said = setting(ACCESS, "e.f", max_age=900)
    assert said == f"{ACCESS}=e.f; Max-Age=900; Path=/; Secure; HttpOnly; SameSite=Strict"
