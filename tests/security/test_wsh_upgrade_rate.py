"""Upgrades from one address: over the rate they are refused before anything of them is verified."""

from __future__ import annotations

from collections.abc import Callable

from logged import events
from wire import Node, Socket


async def test_WSH_11_over_its_rate_an_address_is_refused_before_its_token_is_looked_at(
    start: Callable[..., Node],
) -> None:
    node = start(upgrade_rate=0.02)  # one at once, the next after 50 s
    user = node.user()
    token = user.token()
    device = await node.open(token)
    for presented in (token, "garbage", None):
        assert await node.refusal(presented) == (1008, "rate_limited")
    elsewhere = Socket(await node.raw(token, options={"local_addr": ("127.0.0.2", 0)}))
    await elsewhere.next("hello")
    assert await node.refusal(token, headers={"X-Forwarded-For": "192.0.2.7"}) == (1008, "rate_limited")
    await device.quiet()
    assert node.request("GET", "/healthz").status_code == 200
    told = node.request("GET", "/metrics", token=node.admin, expect=200).text
    assert 'gateway_rate_limited_total{policy="upgrades"} 4.0' in told
    refused = events(node, "socket refused")
    assert {(one["reason"], one["code"], one["address"]) for one in refused} == {("rate_limited", 1008, "127.0.0.1")}
    assert len(refused) == 4


async def test_WSH_11_upgrades_are_not_limited_unless_the_setting_says_so(node: Node) -> None:
    token = node.user().token()
    for _ in range(20):
        await (await node.open(token)).close()
