"""The JavaScript client in a real Chromium: the page of its README, its tabs, restarts under it, blocked sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator

import pytest
from browser import Browser, needs_browser
from jsclient import CLIENT, Site, site_with
from wire import Node, User, eventually

pytestmark = needs_browser
RESTARTS = int(os.environ.get("RESTARTS", "10"))
"""How often the gateway is restarted under a page; each costs half a second."""
PAGE = """<!doctype html><meta charset=utf-8><script>{before}</script><body>{body}"""
TITLES = "[...document.querySelectorAll('#list li')].map(item => item.textContent)"
TRANSPORT = "client.on('state', (event) => { if (event.transport) window.transport = event.transport; });"


def readme_page(node: Node, *, before: str = "") -> str:
    """The first page of the README, with this gateway for its URL and its client where a test finds it."""
    (body,) = re.findall(r"```html\n(.*?)```", (CLIENT / "README.md").read_text("utf-8"), re.DOTALL)
    assert body.count("https://push.example.com") == 1
    body = body.replace("https://push.example.com", node.url)
    body = body.replace("connect({ url, getToken })", "connect({ url, getToken, backoff: { first: 50, most: 300 } })")
    hook = f"window.client = client; window.heard = []; client.on('read', (event) => heard.push(event)); {TRANSPORT}"
    return PAGE.format(before=before, body=body.replace("</script>", f"{hook}</script>"))


@pytest.fixture
def site(start: Callable[..., Node]) -> Iterator[Site]:
    """A site whose origin the gateway behind it allows."""
    with site_with("") as site:
        site.node = start(allowed_origins=site.url)
        site.page = readme_page(site.node)
        yield site


def signed_in(site: Site) -> tuple[Node, User]:
    assert site.node is not None
    user = site.node.user()
    site.refresh_token = user.sign_in()["refresh_token"]
    return site.node, user


def is_open(tab: Browser) -> None:
    tab.until("window.client?.state === 'open'")


def shows(tab: Browser, titles: list[str]) -> None:
    """Exactly these, in this order."""
    tab.until(f"document.querySelectorAll('#list li').length >= {len(titles)}")
    assert tab.run(TITLES) == titles


def test_tabs_share_one_connection_and_what_is_read(site: Site, tab: Callable[[], Browser]) -> None:
    node, user = signed_in(site)
    shop = node.client_token()
    first = tab()
    first.go(site.url)
    is_open(first)
    second = tab()
    second.go(site.url)
    is_open(second)
    assert [first.run("client.leader"), second.run("client.leader")] == [True, False]
    assert len(node.connections(user)) == 1
    one = node.push(shop, user_id=user.id, title="one")["id"]
    node.push(shop, user_id=user.id, title="two")
    for page in (first, second):
        shows(page, ["one", "two"])
        page.until("unread.textContent === '2'")
    second.run(f"client.markRead('{one}')")
    for page in (first, second):
        page.until("unread.textContent === '1'")
        assert page.run("heard.map(event => event.ids)") == [[one]]

    first.shut()
    node.push(shop, user_id=user.id, title="three")  # perhaps while nobody is connected
    second.until("client.leader && client.state === 'open'")
    node.push(shop, user_id=user.id, title="four")
    shows(second, ["one", "two", "three", "four"])
    third = tab()
    third.go(site.url)
    is_open(third)
    assert third.run("client.unread") == 3
    second.run("client.close()")
    third.until("client.leader && client.state === 'open'")
    node.push(shop, user_id=user.id, title="five")
    shows(third, ["five"])
    assert len(eventually(lambda: node.connections(user))) == 1
    node.revoke(user_id=user.id)
    third.until("location.href.endsWith('/sign-in?why=token_revoked')")
    for page in (second, third):
        assert page.said == []


def test_the_gateway_is_restarted_under_a_page_that_receives(site: Site, tab: Callable[[], Browser]) -> None:
    node, user = signed_in(site)
    shop = node.client_token()
    page, other = tab(), tab()
    for one in (page, other):
        one.go(site.url)
        is_open(one)
    titles: list[str] = []

    def push(count: int) -> None:
        new = [f"t{len(titles) + index}" for index in range(count)]
        node.batch(shop, *({"user_id": user.id, "title": title} for title in new))
        titles.extend(new)

    for round in range(RESTARTS):
        push(5)
        if round % 2:
            node.kill()
        else:
            node.stop()
        node.start()
        push(5)
    for one in (page, other):
        shows(one, titles)
        is_open(one)
        one.until(f"unread.textContent === '{len(titles)}'")
    eventually(lambda: node.inbox(user.token())["head"] == len(titles))


def test_a_page_whose_sockets_are_blocked_hears_all_the_same(site: Site, tab: Callable[[], Browser]) -> None:
    """Sockets go where nobody answers, as behind a proxy that lets no upgrade through."""
    node, user = signed_in(site)
    shop = node.client_token()
    blocked = "WebSocket = class extends WebSocket { constructor() { super('ws://127.0.0.1:9/'); } };"
    site.page = readme_page(node, before=blocked)
    page = tab()
    page.go(site.url)
    is_open(page)
    assert page.run("transport") == "events"
    node.push(shop, user_id=user.id, title="one")
    shows(page, ["one"])
    node.kill()
    node.start()
    node.push(shop, user_id=user.id, title="two")
    shows(page, ["one", "two"])
    node.forget_admin()
    node.revoke(user_id=user.id)
    page.until("location.href.endsWith('/sign-in?why=token_revoked')")


def test_a_page_that_one_leaves_lets_go_and_goes_on_when_one_comes_back(site: Site, tab: Callable[[], Browser]) -> None:
    """Whether the browser has kept it (then it must not hold the connection) or loads it again."""
    node, user = signed_in(site)
    shop = node.client_token()
    page = tab()
    page.go(site.url)
    is_open(page)
    node.push(shop, user_id=user.id, title="one")
    shows(page, ["one"])
    page.go("about:blank")  # what was handled is said before it goes
    eventually(lambda: node.connections(user) == [])
    node.push(shop, user_id=user.id, title="two")
    history = page.do("Page.getNavigationHistory")
    page.do("Page.navigateToHistoryEntry", entryId=history["entries"][history["currentIndex"] - 1]["id"])

    def shown() -> list[str]:
        with contextlib.suppress(AssertionError):  # the page may be on its way
            return list(page.run(TITLES))
        return []

    eventually(lambda: shown()[-1:] == ["two"])
    assert shown() in (["one", "two"], ["two"])
    page.go(site.url)
    is_open(page)
    node.push(shop, user_id=user.id, title="three")
    eventually(lambda: shown()[-1:] == ["three"])
    assert len(node.connections(user)) == 1


@pytest.mark.parametrize("transport", ["socket", "events"])
def test_a_page_of_the_gateways_own_origin_needs_only_its_cookie(
    node: Node, shop: str, tab: Callable[[], Browser], transport: str
) -> None:
    user = node.user()
    page = tab()
    page.do("Page.setBypassCSP", enabled=True)  # the client is put into a page that was not made for it
    page.go(f"{node.url}/docs")
    page.until("document.readyState === 'complete'")
    source, exported, _ = (CLIENT / "gateway.min.js").read_text("utf-8").partition("export {")
    assert exported
    page.run(f"(() => {{ {source}; window.connect = connect; }})()")
    body = json.dumps({"username": user.username, "password": user.password})
    login = f"{{method: 'POST', headers: {{'Content-Type': 'application/json'}}, body: JSON.stringify({body})}}"
    assert page.run(f"fetch('/auth/login?cookie=true', {login}).then(answer => answer.status)") == 200
    page.run(
        "window.seen = []; window.client = connect({"
        "getToken: async () => (await fetch('/auth/refresh', {method: 'POST'})).json(),"
        f"{'' if transport == 'socket' else 'WebSocket: null,'}"
        "}); client.on('notification', one => seen.push(one.title)); client.on('state', event => { if (event.transport)"
        " window.transport = event.transport; }); 0"
    )
    is_open(page)
    assert page.run("transport") == transport
    node.push(shop, user_id=user.id, title="one")
    assert page.until("seen.length && seen") == ["one"]
    page.run("client.close()")
