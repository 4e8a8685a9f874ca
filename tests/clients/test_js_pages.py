"""The JavaScript client in a real Chromium: the page of its README, its tabs, restarts under it, blocked sockets."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator

import pytest
from browser import Browser, launched, needs_browser
from jsclient import CLIENT, Site, site_with
from wire import Node, User, eventually

from gateway.client import Gateway

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


class Sender(threading.Thread):
    """A backend service that pushes one after the other, whatever becomes of the gateway. ``titles``: of those that
    were answered."""

    def __init__(self, node: Node, user: User) -> None:
        super().__init__()
        client_id, client_secret = node.client()
        self._user, self._over = user.id, threading.Event()
        self._gateway = Gateway(node.url, client_id=client_id, client_secret=client_secret, attempts=1000, deadline=60)
        self.titles: list[str] = []

    def run(self) -> None:
        with self._gateway as gateway:
            while not self._over.is_set():
                gateway.push(user_id=self._user, title=f"t{len(self.titles)}")
                self.titles.append(f"t{len(self.titles)}")

    def sends(self, count: int) -> None:
        """So many more."""
        wanted = len(self.titles) + count
        eventually(lambda: len(self.titles) >= wanted, what=f"{count} more pushes")

    def end(self) -> list[str]:
        self._over.set()
        self.join()
        return self.titles


def test_the_gateway_is_restarted_under_a_page_that_receives(site: Site, tab: Callable[[], Browser]) -> None:
    """Every other time without a word (SIGKILL), and each time with a push under way: none is missed, none doubled."""
    node, user = signed_in(site)
    page, other = tab(), tab()
    for one in (page, other):
        one.go(site.url)
        is_open(one)
    sender = Sender(node, user)
    sender.start()
    try:
        for round in range(RESTARTS):
            sender.sends(5)
            if round % 2:
                node.kill()
            else:
                node.stop()
            node.start()
        sender.sends(5)
    finally:
        titles = sender.end()
    for one in (page, other):
        shows(one, titles)
        is_open(one)
        one.until(f"unread.textContent === '{len(titles)}'")
    eventually(lambda: node.inbox(user.token())["head"] == len(titles))


def test_a_tab_that_the_browser_freezes_gives_the_connection_away(site: Site, tab: Callable[[], Browser]) -> None:
    """As it does with tabs that nobody looks at: what it led goes on without it.

    Playwright keeps every tab in sight, and those are never frozen; so the page is told as Chromium tells it, by an
    event at the document that does not bubble.
    """
    node, user = signed_in(site)
    shop = node.client_token()
    first, second = tab(), tab()
    for one in (first, second):
        one.go(site.url)
        is_open(one)
    first.run("document.dispatchEvent(new Event('freeze'))")
    second.until("client.leader && client.state === 'open'")
    node.push(shop, user_id=user.id, title="one")
    shows(second, ["one"])
    first.run("document.dispatchEvent(new Event('resume'))")
    first.until("!client.leader && unread.textContent === '1'")
    node.push(shop, user_id=user.id, title="two")
    shows(second, ["one", "two"])
    first.until(f"({TITLES}).at(-1) === 'two' && unread.textContent === '2'")
    assert len(node.connections(user)) == 1


def test_a_tab_that_crashes_while_it_handles_loses_nothing(site: Site, tab: Callable[[], Browser]) -> None:
    """What its handlers had not done with is acknowledged by the tab that takes over, which has shown it once."""
    node, user = signed_in(site)
    shop = node.client_token()
    first, second = tab(), tab()
    for one in (first, second):
        one.go(site.url)
        is_open(one)
    first.run("client.on('notification', () => new Promise(() => {})), 0")
    ids = [node.push(shop, user_id=user.id, title=title)["id"] for title in ("one", "two")]
    for one in (first, second):
        shows(one, ["one", "two"])

    def states() -> set[str]:
        return {node.request("GET", f"/notifications/{id}", token=shop, expect=200).json()["state"] for id in ids}

    assert first.run("client.leader")
    assert states() == {"stored"}
    first.crash()
    second.until("client.leader && client.state === 'open'")
    eventually(lambda: states() == {"acknowledged"})
    node.push(shop, user_id=user.id, title="three")
    shows(second, ["one", "two", "three"])


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


def test_a_page_that_one_leaves_lets_go_and_goes_on_when_one_comes_back(site: Site) -> None:
    """Whether the browser has kept it (then it must not hold the connection) or loads it again."""
    node, user = signed_in(site)
    shop = node.client_token()
    with launched(keeps_pages=True) as chromium, chromium.profile() as tab:
        page = tab()
        page.go(site.url)
        is_open(page)
        node.push(shop, user_id=user.id, title="zero")  # this is acknowledged at once, the next a second later
        id = node.push(shop, user_id=user.id, title="one")["id"]
        shows(page, ["zero", "one"])
        page.go("about:blank")  # what was handled is said before it goes
        eventually(lambda: node.connections(user) == [])
        receipt = f"/notifications/{id}"
        eventually(lambda: node.request("GET", receipt, token=shop, expect=200).json()["state"] == "acknowledged")
        node.push(shop, user_id=user.id, title="two")
        page.back()
        page.until(f"{TITLES}.at(-1) === 'two'")
        assert page.run(TITLES) in (["zero", "one", "two"], ["two"])
        page.go(site.url)
        is_open(page)
        node.push(shop, user_id=user.id, title="three")
        page.until(f"{TITLES}.at(-1) === 'three'")
        assert len(node.connections(user)) == 1


@pytest.mark.parametrize("profile_options", [{"bypass_csp": True}], ids=["no policy"])
@pytest.mark.parametrize("transport", ["socket", "events"])
def test_a_page_of_the_gateways_own_origin_needs_only_its_cookie(
    node: Node, shop: str, tab: Callable[[], Browser], transport: str
) -> None:
    """The client is put into a page that was not made for it: its policy would not let it in."""
    user = node.user()
    page = tab()
    page.go(f"{node.url}/docs")
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
