"""When the keys of an issuer are fetched and when not, by a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from fakes import Seconds
from issuers import IssuerKey

from gateway.auth.issuers import TrustedIssuer
from gateway.auth.jwks import ForeignKey
from gateway.errors import IssuerUnavailable
from gateway.issuer_keys import BACKOFF, KEPT, LONGEST, LOOKED_FOR, SHORTEST, USUAL, WHILE_RENEWING, IssuerKeys
from gateway.jwks import good_for

IDP = TrustedIssuer("https://idp.example", "https://idp.example/jwks", "notifications")
OLD, NEW = IssuerKey("old"), IssuerKey("new")


class Source:
    """``keys`` None: it fails. ``open``: a fetch that has begun is answered."""

    def __init__(self) -> None:
        self.keys: list[IssuerKey] | None = [OLD]
        self.good_for: float | None = None
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        assert url == IDP.jwks_url
        self.asked += 1
        await self.open.wait()
        if self.keys is None:
            raise OSError("no route to host")
        return json.dumps({"keys": [key.jwk for key in self.keys]}).encode(), self.good_for


class Bench:
    def __init__(self) -> None:
        self.clock, self.source = Seconds(1000.0), Source()
        self.known = IssuerKeys({IDP.issuer: IDP}, source=self.source, monotonic=self.clock)

    async def key(self, kid: str | None = "old") -> ForeignKey | None:
        return await self.known.key(IDP, kid, "ES256")

    async def has(self, kid: str = "old") -> bool:
        return await self.key(kid) is not None

    async def settled(self) -> None:
        """What is under way in the background is done."""
        for _ in range(20):
            await asyncio.sleep(0)  # noqa: TID251 - lets the loop turn, waits for nothing


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.known.close()


async def test_keys_are_fetched_when_first_asked_for_and_kept(bench: Bench) -> None:
    assert bench.source.asked == 0
    for _ in range(3):
        assert await bench.has()
    assert bench.source.asked == 1


async def test_a_hundred_who_wait_share_one_fetch(bench: Bench) -> None:
    bench.source.open.clear()
    waiting = [asyncio.create_task(bench.key()) for _ in range(100)]
    await bench.settled()
    waiting[0].cancel()  # and one who goes away does not take it from the others
    await bench.settled()
    bench.source.open.set()
    found = await asyncio.gather(*waiting[1:])
    assert all(key is not None and key.kid == "old" for key in found)
    assert bench.source.asked == 1


@pytest.mark.parametrize(
    ("said", "good"), [(None, USUAL), (5.0, SHORTEST), (0.0, SHORTEST), (3600.0, 3600.0), (10.0**9, LONGEST)]
)
async def test_they_are_good_for_as_long_as_is_said_within_bounds(
    bench: Bench, said: float | None, good: float
) -> None:
    bench.source.good_for = said
    assert await bench.has()
    bench.clock.now += good - 1
    assert await bench.has()
    await bench.settled()
    assert bench.source.asked == 1
    bench.clock.now += 1
    await bench.key()
    await bench.settled()
    assert bench.source.asked == 2


async def test_stale_keys_are_used_while_new_ones_are_on_their_way_but_not_for_long(bench: Bench) -> None:
    assert await bench.has()
    bench.source.keys = [NEW]
    bench.source.open.clear()
    bench.clock.now += USUAL
    assert await bench.has()
    bench.source.open.set()
    await bench.settled()
    assert not await bench.has()
    assert await bench.has("new")
    bench.source.keys = [OLD]
    bench.clock.now += USUAL + WHILE_RENEWING
    assert not await bench.has("new")  # nobody came for so long: this one waited for the new ones
    assert await bench.has()


async def test_a_key_nobody_knows_is_looked_for_once_in_half_a_minute(bench: Bench) -> None:
    assert await bench.has()
    bench.clock.now += LOOKED_FOR
    for _ in range(50):
        assert not await bench.has("unknown")
    assert bench.source.asked == 2
    bench.source.keys = [OLD, NEW]
    bench.clock.now += LOOKED_FOR - 1
    assert not await bench.has("new")
    bench.clock.now += 1
    assert all(await asyncio.gather(*(bench.has("new") for _ in range(50))))
    assert bench.source.asked == 3
    assert await bench.key(None) is None  # two would fit, and no name to look for
    assert bench.source.asked == 3


async def test_without_any_keys_it_is_unavailable_and_backs_off(bench: Bench) -> None:
    bench.source.keys = None
    for number, wait in enumerate((1, 2, 4, 8, 16, 32, BACKOFF, BACKOFF), 1):
        for _ in range(5):
            with pytest.raises(IssuerUnavailable) as refusal:
                await bench.key()
            assert refusal.value.retry_after == wait
        assert bench.source.asked == number
        bench.clock.now += wait
    bench.source.keys = [OLD]
    assert await bench.has()


async def test_old_keys_outlive_an_issuer_that_is_away_for_a_day(bench: Bench) -> None:
    assert await bench.has()
    bench.source.keys = None
    for age in (KEPT / 3, KEPT / 2, KEPT - 1):
        bench.clock.now = 1000.0 + age
        assert await bench.has()
    with pytest.raises(IssuerUnavailable):  # whether there is such a key cannot be known
        await bench.key("new")
    bench.clock.now += 1
    with pytest.raises(IssuerUnavailable):
        await bench.key()


async def test_what_is_no_set_of_keys_is_a_failure_and_an_empty_set_is_none(bench: Bench) -> None:
    assert await bench.has()
    bench.source.keys = []
    bench.clock.now += USUAL + WHILE_RENEWING
    assert not await bench.has()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", None),
        ("public", None),
        ("max-age=300", 300.0),
        ("public, Max-Age=60, must-revalidate", 60.0),
        ('max-age="90"', 90.0),
        ("s-maxage=5, max-age=7", 7.0),
        ("max-age=-1", None),
        ("max-age=99999999999999", 9999999999.0),
        ("no-store", 0.0),
        ("no-cache, max-age=300", 0.0),
    ],
)
def test_how_long_an_answer_says_it_is_good(header: str, seconds: float | None) -> None:
    assert good_for(header) == seconds
