"""What an administrator does at the console, in a real Chromium against a real gateway."""

from __future__ import annotations

import json
from typing import Any

import pytest
from admins import Console
from axe import needs_axe, violations
from browser import needs_browser
from wire import ADMIN_PASSWORD, Node, User, eventually

pytestmark = needs_browser

EVIL = "<img src=x onerror='window.ran=1'>"


@pytest.fixture(scope="module")
def admin(node: Node, browser: Any) -> Console:
    """Signed in, at the overview. Tests that sign out sign in again."""
    console = Console(node, browser)
    console.look(1280)
    console.enter()
    return console


@pytest.fixture(autouse=True)
def _clean(admin: Console) -> Any:
    """Whatever a test does, the policy holds and the console of the browser stays quiet."""
    if admin.browser.run("!document.querySelector('nav')"):
        admin.enter()
    admin.browser.said.clear()
    yield
    # What a page was refused stands in the log of the browser: these tests ask for it.
    admin.browser.said[:] = [said for said in admin.browser.said if "Failed to load resource" not in said]
    admin.is_clean()


# -- who may ------------------------------------------------------------------------------------------------------


def test_who_is_no_administrator_is_told_so_and_signed_out(admin: Console, node: Node) -> None:
    user = node.user()
    admin.open()
    admin.sign_in(user.username, "wrong " + user.password)
    admin.sees("[role=alert]", "credentials")
    admin.open()
    admin.sign_in(user.username, user.password)
    admin.sees("[role=alert]", "is no administrator")
    listed = node.request("GET", f"/admin/sessions?user_id={user.id}", token=node.admin, expect=200).json()
    assert listed["items"] == [], "the session that was opened to find out has ended"
    admin.enter()


def test_the_tokens_lie_nowhere_and_a_page_that_is_left_has_signed_out(admin: Console, node: Node) -> None:
    assert admin.browser.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0

    def mine() -> list[Any]:
        listed = node.request("GET", "/admin/sessions?limit=200", token=node.admin, expect=200).json()["items"]
        return [one["id"] for one in listed if one["device"] == "Console"]

    (before,) = mine()
    admin.enter()
    eventually(lambda: len(mine()) == 1 and mine() != [before], what="the session of before is over")


def test_a_session_that_is_revoked_elsewhere_ends_the_console_too(admin: Console, node: Node) -> None:
    listed = node.request("GET", "/admin/sessions?limit=200", token=node.admin, expect=200).json()["items"]
    for one in listed:
        if one["device"] == "Console":
            node.revoke(session=one["id"])
    admin.browser.run("location.hash = '#/clients'")
    admin.sees("[role=alert]", "Your session has ended")
    admin.sign_in()
    admin.sees("h1", "Clients")


def test_an_access_token_is_renewed_before_it_ends(admin: Console) -> None:
    """As if it were good for less than the slack: the next question renews it first."""
    asked = len([url for url in admin.browser.requested if url.endswith("/auth/refresh")])
    admin.browser.run("window.real = Date.now, Date.now = () => window.real() + 890e3, 0")
    admin.visit("audit", "Audit")
    admin.sees("td", "login")
    admin.browser.run("Date.now = window.real, 0")
    assert len([url for url in admin.browser.requested if url.endswith("/auth/refresh")]) > asked


# -- the overview -------------------------------------------------------------------------------------------------


async def test_the_overview_draws_what_happens(admin: Console, node: Node, shop: str) -> None:
    user = node.user()
    socket = await node.open(user.token())
    admin.visit("overview", "Overview")
    for number in range(20):
        node.push(shop, user_id=user.id, title=f"n{number}")
    shown = "Object.fromEntries([...document.querySelectorAll('.legend li')].map(e => [e.closest('.plot').querySelector('h2').innerText + ' ' + e.childNodes[1].data.trim(), e.querySelector('strong').innerText]))"  # noqa: E501
    admin.browser.until(f"(s => s['Connections Connections'] >= 1 && s['Delivery latency p99'] !== '–')({shown})")
    values = admin.browser.run(shown)
    assert values["Delivery latency p99"].endswith("s")
    assert values["Event-loop lag p99"].endswith("s")
    assert len([name for name in values if name.startswith("Errors per second")]) == 3
    assert admin.browser.run("document.querySelectorAll('.plot canvas').length") == 5
    admin.sees(".health", "It can serve.")
    admin.sees(".nodes", "Connections: ")
    await socket.close()


def test_numbers_of_several_workers_are_one_and_what_began_anew_has_no_rate(admin: Console) -> None:
    text = "\n".join(
        [
            "# HELP gateway_connections Open sockets.",
            'gateway_connections{worker="1"} 3.0',
            'gateway_connections{worker="2"} 4.0',
            'gateway_node_info{worker="2",node="b \\"2\\""} 1.0',
            'gateway_node_info{worker="1",node="a"} 1.0',
            *(f'd_bucket{{worker="{at}",le="{le}"}} {n}' for at in (1, 2) for le, n in (("0.1", 50), ("1", 100))),
            'd_bucket{worker="1",le="+Inf"} 100.0',
            'd_bucket{worker="2",le="+Inf"} 100.0',
        ]
    )
    script = """import('/console/prometheus.js').then(({parse, quantile, rate}) => {
      const {sums, buckets, nodes} = parse(%s)
      return [sums.gateway_connections, nodes,
              quantile(0.5, undefined, buckets.d), quantile(0.75, undefined, buckets.d),
              quantile(0.5, buckets.d, buckets.d), quantile(0.5, undefined, undefined),
              rate(2, 8, 2), rate(8, 2, 2)]
    })"""
    values = admin.browser.run(script % json.dumps(text))
    assert values == [7, ["a", 'b \\"2\\"'], 0.1, pytest.approx(0.55), None, None, 3, None]


# -- users, sessions, connections ---------------------------------------------------------------------------------


def test_users_are_found_made_and_disabled_and_their_password_reset(admin: Console, node: Node) -> None:
    others = [node.user() for _ in range(2)]
    admin.visit("users", "Users")
    admin.press("Create a user")
    admin.fill("username", "Grace Hopper")
    admin.fill("password", "x")
    admin.press("Create", within="dialog")
    admin.sees("dialog [role=alert]", "password")
    admin.fill("password", "a nice long passphrase")
    admin.press("Create", within="dialog")
    admin.sees("[role=status]", "Grace Hopper was created.")
    admin.fill("query", "e hop")
    admin.press("Search")
    admin.browser.until("document.querySelectorAll('tbody tr').length === 1")
    admin.fill("query", "nobody is called so")
    admin.press("Search")
    admin.sees(".blank", "Nobody is called")
    admin.fill("query", others[0].username)
    admin.press("Search")
    admin.press(others[0].username)
    admin.sees("h1", others[0].username)
    token = others[0].token()
    admin.press("Reset password…")
    admin.fill("password", "another long passphrase")
    admin.press("Reset password", within="dialog")
    admin.sees("[role=status]", "was reset")
    node.request("GET", "/auth/me", token=token, expect=401)
    node.sign_in(others[0].username, "another long passphrase")
    admin.press("Disable…")
    admin.press("Disable", within="dialog")
    admin.sees(".tag", "disabled")
    node.request(
        "POST", "/auth/login", json={"username": others[0].username, "password": "another long passphrase"}, expect=401
    )
    admin.press("Enable")
    admin.sees(".tag", "active")


async def _ends(admin: Console, node: Node, how: str, page: str) -> None:
    user = node.user()
    first, second = user.sign_in(device="Old phone"), user.sign_in(device="New phone")
    lost, kept = await node.open(first["access_token"]), await node.open(second["access_token"])
    session = lost.hello["session"]
    admin.visit(f"{page}?user={user.id}", page.capitalize())
    row = "Old phone" if page == "sessions" else lost.hello["connection"]
    admin.press("End" if how == "end" else "Revoke…", row=row)
    if how == "revoke":
        admin.fill("reason", f"lost {EVIL}")
    admin.press("End" if how == "end" else "Revoke", within="dialog")
    assert await lost.closed() == (1008, "token_revoked")
    admin.browser.until("document.querySelectorAll('tbody tr').length === 1")
    await kept.quiet()
    if how == "revoke":
        admin.visit("revocations", "Revocations")
        admin.sees("tbody tr", session)
        admin.sees("td", f"lost {EVIL}")


@pytest.mark.parametrize(("how", "page"), [("end", "connections"), ("revoke", "sessions")])
async def test_a_session_is_ended_and_its_socket_closes(admin: Console, node: Node, how: str, page: str) -> None:
    await _ends(admin, node, how, page)


def test_a_pages_socket_ends_when_its_session_is_revoked_at_the_console(admin: Console, node: Node) -> None:
    """Both in the one browser: a page of ours that listens, and the console beside it."""
    user = node.user()
    token = user.sign_in(device="A page")["access_token"]
    admin.browser.run(
        f"window.page = new WebSocket('{node.ws_url(token=token)}'), window.end = null, "
        "page.onmessage = e => window.heard = JSON.parse(e.data).type, "
        "page.onclose = e => window.end = [e.code, e.reason], 0"
    )
    admin.browser.until("window.heard === 'hello'")
    admin.visit(f"users/{user.id}", user.username)
    admin.press("Revoke all sessions…")
    admin.press("Revoke", within="dialog")
    assert admin.browser.until("window.end") == [1008, "token_revoked"]
    admin.sees(".blank", "Nothing is open here.")


# -- sending ------------------------------------------------------------------------------------------------------


async def test_a_notification_is_sent_and_its_receipt_changes_before_ones_eyes(admin: Console, node: Node) -> None:
    user = node.user()
    token = user.token()
    socket = await node.open(token)
    admin.visit("send?to=somebody", "Send a notification")
    admin.fill("to", user.id)
    admin.fill("title", EVIL)
    admin.fill("data", "{no")
    admin.press("Send", within="form")
    admin.sees("[role=alert]", "Data is not JSON.")
    admin.fill("data", '{"order": 7}')
    admin.press("Send", within="form")
    (told,) = await socket.notifications(1)
    assert (told["title"], told["data"], told["priority"]) == (EVIL, {"order": 7}, "normal")
    admin.sees(".tag", "stored")
    await socket.ask(type="ack", seq=told["seq"])
    admin.sees(".tag", "acknowledged")
    node.request("POST", "/inbox/read", token=token, json={"ids": [told["id"]]}, expect=200)
    admin.sees(".tag", "read")
    assert admin.browser.run("document.querySelectorAll('.timeline .done time').length") == 3
    admin.press("Withdraw…")
    admin.press("Withdraw", within="dialog")
    admin.sees(".timeline .ended", "Withdrawn")
    assert admin.browser.run("document.querySelector('#field-to').value") == user.id, "the next one goes there too"
    assert node.inbox(token)["items"] == []


# -- clients, audit, presence -------------------------------------------------------------------------------------


def test_a_secret_is_shown_once(admin: Console, node: Node) -> None:
    admin.visit("clients", "Clients")
    admin.press("Create a client")
    admin.fill("name", f"Billing {EVIL}")
    admin.press("Create", within="dialog")
    admin.sees("dialog h2", f"The secret of Billing {EVIL}")
    id, secret = (admin.browser.run(f"document.querySelector('dialog {one}').innerText") for one in ("dd", ".secret"))
    node.client_token((id, secret))
    admin.press("Done")
    assert secret not in admin.browser.run("document.documentElement.outerHTML")
    admin.press("Rotate…", row="Billing")
    admin.press("Rotate", within="dialog")
    admin.sees("dialog h2", "The secret of Billing")
    second = admin.browser.run("document.querySelector('dialog .secret').innerText")
    form = {"grant_type": "client_credentials"}
    node.request("POST", "/auth/token", data=form, auth=(id, secret), expect=401)
    token = node.client_token((id, second))
    admin.press("Done")
    admin.press("Revoke…", row="Billing")
    admin.press("Revoke", within="dialog")
    admin.sees("[role=status]", "were revoked")
    node.request("GET", "/auth/me", token=token, expect=401)
    admin.press("Delete…", row="Billing")
    admin.press("Delete", within="dialog")
    admin.browser.until("!document.querySelector('tbody')?.innerText.includes('Billing')")
    admin.visit("audit", "Audit")
    admin.sees("tbody td", "client_deleted")


async def test_presence_of_named_users(admin: Console, node: Node) -> None:
    here, away = node.user(), node.user()
    socket = await node.open(here.token())
    admin.visit("presence", "Presence")
    admin.sees(".blank", "Name the users")
    admin.fill("users", f"{here.id}, {away.id}")
    admin.press("Show")
    admin.browser.until(
        "[...document.querySelectorAll('tbody .tag')].map(e => e.innerText).join() === 'online,offline'"
    )
    admin.fill("users", "is being typed")
    await socket.close()
    admin.browser.until(
        "[...document.querySelectorAll('tbody .tag')].map(e => e.innerText).join() === 'offline,offline'"
    )
    assert admin.browser.run("document.querySelector('#field-users').value") == "is being typed"


# -- for everybody ------------------------------------------------------------------------------------------------


def test_a_name_that_is_markup_is_shown_as_text(admin: Console, node: Node) -> None:
    user = node.user(EVIL)
    user.sign_in(device=EVIL)
    for page, title in (("users", "Users"), (f"users/{user.id}", EVIL), ("sessions", "Sessions"), ("audit", "Audit")):
        admin.visit(page, title)
        admin.sees("main", EVIL if page != "audit" else EVIL.replace('"', '\\"'))
    assert admin.browser.run("window.ran ?? null") is None
    assert admin.browser.run("document.querySelectorAll('main img').length") == 0


def test_it_is_used_by_keyboard_alone(admin: Console) -> None:
    admin.visit("users", "Users")
    admin.browser.until("document.activeElement.tagName === 'H1'")
    for _ in range(12):
        admin.browser.press("Tab")
        if admin.browser.run("document.activeElement.innerText") == "Create a user":
            break
    admin.browser.press("Enter")
    admin.browser.until("document.activeElement.id === 'field-username'")
    admin.browser.press("Escape")
    admin.browser.until("!document.querySelector('dialog')")
    assert admin.browser.run("document.activeElement.innerText") == "Create a user"
    admin.browser.press("Enter")
    admin.press("Cancel", within="dialog")
    admin.browser.until("!document.querySelector('dialog')")
    assert admin.browser.run("document.activeElement.innerText") == "Create a user"


PAGES = ("overview", "users", "sessions", "connections", "presence", "send", "clients", "revocations", "audit")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
async def test_nothing_jumps_and_nothing_is_wider_than_the_window(
    admin: Console, node: Node, width: int, dark: bool
) -> None:
    user = node.user(f"{width}{'w' * 60}")
    socket = await node.open(user.sign_in(device="W" * 100)["access_token"])
    admin.look(width, dark=dark)
    admin.browser.run(
        "window.jumped = [], window.watching = new PerformanceObserver(list => list.getEntries().forEach("
        "e => e.hadRecentInput || jumped.push([location.hash, e.value, e.sources.map(s => s.node?.outerHTML)])"
        ")), watching.observe({type: 'layout-shift'}), 0"
    )
    for page in PAGES:
        admin.browser.run(f"location.hash = {json.dumps('#/' + page)}")
        admin.browser.until(f"document.querySelector('nav [aria-current]').hash === {json.dumps('#/' + page)}")
        admin.browser.until("!document.querySelector('[aria-busy=true]')")
        assert admin.browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), page
    jumped = admin.browser.run("watching.disconnect(), jumped")
    assert sum(value for _, value, _ in jumped) < 0.1, jumped
    admin.look(1280)
    await socket.close()


@pytest.mark.parametrize(("address", "title"), [("users/%", "User"), ("%E0%A4%A", "There is no such page")])
def test_an_address_that_was_typed_wrong_breaks_nothing(admin: Console, address: str, title: str) -> None:
    admin.browser.run(f"location.hash = {json.dumps('#/' + address)}")
    admin.sees("main h1", title)
    admin.visit("users", "Users")


@needs_axe
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_axe_finds_no_serious_issue(admin: Console, node: Node, width: int, dark: bool) -> None:
    user: User = node.user()
    user.sign_in(device="Phone")
    admin.look(width, dark=dark)
    found = {}
    for page in (*PAGES, f"users/{user.id}"):
        admin.browser.run(f"location.hash = {json.dumps('#/' + page)}")
        admin.browser.until(f"location.hash === {json.dumps('#/' + page)} && !!document.querySelector('main h1')")
        admin.browser.until("!document.querySelector('[aria-busy=true]')")
        if wrong := violations(admin.browser):
            found[page] = wrong
    admin.visit("users", "Users")
    admin.press("Create a user")
    if wrong := violations(admin.browser):
        found["dialog"] = wrong
    admin.press("Cancel")
    admin.look(1280)
    assert found == {}


def test_a_gateway_that_is_away_is_said_and_found_again(start: Any, browser: Any) -> None:
    own = start()
    console = Console(own, browser)
    console.enter()
    own.kill()
    console.sees(".health", "cannot be reached")
    console.sees("[role=alert]", "The gateway cannot be reached.")
    own.start()
    console.browser.until("!document.querySelector('[role=alert]')")
    console.sees(".health", "It can serve.")
    console.press("Sign out")  # nothing more is asked of it: what the page asks for is looked at after each test
    console.browser.shows("#field-username")
    browser.go("about:blank")
    browser.said.clear()
    browser.requested.clear()


def test_signing_out(admin: Console) -> None:
    admin.press("Sign out")
    admin.browser.shows("#field-password")
    assert ADMIN_PASSWORD not in admin.browser.run("document.documentElement.outerHTML")
