"""What docs/api.md and docs/protocol.md show of a page without our client is run, in a real Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from browser import Browser, needs_browser
from wire import ROOT, Node, User

pytestmark = needs_browser
AROUND = """(async () => {
  window.shown = [];
  const show = (one) => shown.push(one.title);
  const sign = async (path, body) => (await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)})).json();
  let tokens = await sign("/auth/login", %s);
  let headers = {Authorization: `Bearer ${tokens.access_token}`};
  window.refreshed = 0;
  const refresh = async () => {
    refreshed += 1;
    tokens = await sign("/auth/refresh", {refresh_token: tokens.refresh_token});
    headers = {Authorization: `Bearer ${tokens.access_token}`};
  };
  %s
})()"""


@pytest.fixture
def profile_options() -> dict[str, Any]:
    """The scripts are put into a page that was not made for them."""
    return {"bypass_csp": True}


def snippet(paper: str) -> str:
    (code,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs" / paper).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(code)


def run(page: Browser, node: Node, user: User, code: str) -> None:
    page.go(f"{node.url}/docs")
    who = json.dumps({"username": user.username, "password": user.password})
    page.run(AROUND % (who, code))


def test_the_event_source_of_the_protocol(start: Callable[..., Node], tab: Callable[[], Browser]) -> None:
    # So that it has to get itself another ticket. It has that long from a refresh to a ticket.
    node = start(access_token_ttl=4, token_leeway=0)
    user, shop, page = node.user(), node.client(), tab()
    run(page, node, user, f"{snippet('protocol.md')} headers = {{Authorization: 'Bearer old'}}; await listen();")
    node.push(node.client_token(shop), user_id=user.id, title="one")
    page.until("shown.length === 1")
    page.until("refreshed > 1")  # once for the first ticket, once when it ran out
    node.stop()
    node.start()
    node.push(node.client_token(shop), user_id=user.id, title="two")
    page.until("shown.length === 2")
    assert page.run("shown") == ["one", "two"]


def test_the_socket_of_the_api(node: Node, shop: str, tab: Callable[[], Browser]) -> None:
    code = snippet("api.md")
    assert code.count("wss://") == 1
    user, page = node.user(), tab()
    heard = "socket.onmessage = ({data}) => { const frame = JSON.parse(data); if (frame.title) show(frame); };"
    run(page, node, user, f"{code.replace('wss://', 'ws://')} {heard}")
    node.push(shop, user_id=user.id, title="one")
    page.until("shown.length === 1")
