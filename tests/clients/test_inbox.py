"""``<notification-inbox>`` and ``/demo`` in a real Chromium: live, in two tabs, by keyboard alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from axe import needs_axe, violations
from browser import Browser, needs_browser
from jsclient import CLIENT, site_with
from wire import ADMIN_PASSWORD, Node, User, eventually

pytestmark = needs_browser
INBOX = "document.querySelector('notification-inbox')"
ROOT = f"{INBOX}.shadowRoot"
ROOT_IF_ANY = f"{INBOX}?.shadowRoot"
TITLES = f"[...{ROOT}.querySelectorAll('li .title')].map(one => one.lastChild.textContent)"
UNREAD = f"[...{ROOT}.querySelectorAll('li.unread .title')].map(one => one.lastChild.textContent)"
FOCUSED = f"({ROOT}.activeElement ?? document.activeElement)"
WATCH_SHIFTS = (
    "window.shifts = []; new PerformanceObserver(list => list.getEntries().forEach(one => shifts.push("
    "one.sources.map(({previousRect, currentRect}) => JSON.stringify([previousRect, currentRect])).join())))"
    ".observe({type: 'layout-shift', buffered: true});"
)
NOBODY = "the server responded with a status of 401"
"""What Chromium writes on the console when the page asks who is signed in and nobody is."""


@pytest.fixture
def page(tab: Callable[[], Browser]) -> Iterator[Browser]:
    """A tab that asks nobody else, breaks no rule of the page's policy, and reports no error."""
    page = tab()
    yield page
    assert page.run("window.violations") == []
    assert [text for text in page.said if NOBODY not in text and "ERR_CONNECTION" not in text] == []


def shown(page: Browser, view: str) -> None:
    page.shows(f"#{view}")


def connected(page: Browser) -> None:
    page.until("document.querySelector('#state')?.textContent === 'Connected'")


def fill_in(page: Browser, username: str, password: str) -> None:
    shown(page, "sign-in")
    page.fill("#username", username)
    page.fill("#password", password)
    page.click("#sign-in button")


def signed_in(page: Browser, user: User) -> None:
    page.go(f"{user.node.url}/demo")
    fill_in(page, user.username, user.password)
    connected(page)


def opened(page: Browser, titles: list[str]) -> None:
    """The panel, with exactly these."""
    page.run(f"{INBOX}.open = true")
    lists(page, titles)


def becomes(page: Browser, script: str, value: object) -> None:
    """The expression is this in the end."""
    try:
        eventually(lambda: page.run(script) == value)
    except AssertionError:
        assert page.run(script) == value, script


def lists(page: Browser, titles: list[str]) -> None:
    becomes(page, TITLES, titles)


def badge(page: Browser, text: str) -> None:
    becomes(page, f"{ROOT}.querySelector('.badge').textContent", text)
    assert page.run(f"{ROOT}.querySelector('.badge').hidden") is (text == "")


def test_live_in_two_tabs_until_the_session_is_revoked(
    node: Node, shop: str, page: Browser, tab: Callable[[], Browser]
) -> None:
    user = node.user()
    page.go(f"{node.url}/demo")
    fill_in(page, user.username, "something else")
    page.until("document.querySelector('#refused').textContent.startsWith('Wrong')")
    fill_in(page, user.username, user.password)
    connected(page)
    other = tab()
    other.go(f"{node.url}/demo")  # the cookie is enough
    connected(other)
    assert len(node.connections(user)) == 1
    both = (page, other)

    node.push(shop, user_id=user.id, title="one", body="the first")
    for one in both:
        badge(one, "1")
        assert one.run(f"{ROOT}.querySelector('.bell').getAttribute('aria-label')") == "Notifications, 1 unread"
        one.until(f"{ROOT}.querySelector('.hidden[role=status]').textContent === 'New notification: one'")
    node.push(shop, user_id=user.id, title="two")
    withdrawn = node.push(shop, user_id=user.id, title="three")["id"]
    node.push(shop, user_id=user.id, title="now or never", ttl=0, expect=202)
    for one in both:
        opened(one, ["now or never", "three", "two", "one"])
        badge(one, "3")
    node.request("DELETE", f"/notifications/{withdrawn}", token=shop, expect=204)
    page.click("notification-inbox li:last-child button.read")
    for one in both:
        badge(one, "1")
        lists(one, ["now or never", "two", "one"])
        becomes(one, UNREAD, ["two"])
    other.click("notification-inbox li:last-child button.hide")
    for one in both:
        lists(one, ["now or never", "two"])
    page.click("notification-inbox .all")
    for one in both:
        badge(one, "")
        becomes(one, UNREAD, [])
        assert one.run("document.title") == "Inbox demo"

    node.revoke(user_id=user.id)
    for one in both:
        shown(one, "sign-in")
        assert "ended" in one.run("document.querySelector('#why').textContent")
        assert one.run(f"{INBOX} === null && !document.body.textContent.includes({json.dumps(user.username)})")
    assert other.run("window.violations") == []
    assert [url for url in page.requested if not url.startswith((f"{node.url}/", "data:,"))] == []
    assert page.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_by_keyboard_alone(node: Node, shop: str, page: Browser) -> None:
    user = node.user()
    for number in range(1, 5):
        node.push(shop, user_id=user.id, title=f"n{number}")
    page.go(f"{node.url}/demo")
    shown(page, "sign-in")
    assert page.run("document.activeElement.id") == "username"
    page.write(user.username)
    page.press("Tab")
    page.write(user.password)
    page.press("Enter")
    connected(page)
    badge(page, "4")
    page.run("document.querySelector('#out').focus()")
    page.press("Tab")
    name = f"{FOCUSED}.getAttribute('aria-label')"
    assert page.run(name) == "Notifications, 4 unread"
    focused = f"{FOCUSED}.matches('.title') && {FOCUSED}.lastChild.textContent"
    expanded = f"{ROOT}.querySelector('.bell').getAttribute('aria-expanded')"
    assert page.run(expanded) == "false"
    page.press("ArrowDown")
    assert page.run(expanded) == "true"
    lists(page, ["n4", "n3", "n2", "n1"])
    becomes(page, focused, "n4")
    page.press("ArrowDown")
    assert page.run(focused) == "n3"
    assert page.run(f"getComputedStyle({FOCUSED}).outlineStyle") == "solid"
    page.press("Enter")
    badge(page, "3")
    page.press("End")
    assert page.run(focused) == "n1"
    page.press("Tab")
    assert page.run(name) == "Mark as read: n1"
    page.press("Space")
    badge(page, "2")
    page.until(f"{FOCUSED}.matches('.title')")  # the button is gone, the focus is not
    assert page.run(focused) == "n1"
    page.press("Tab")
    assert page.run(name) == "Hide: n1"
    page.press("Enter")
    lists(page, ["n4", "n3", "n2"])
    assert page.run(focused) == "n2"
    page.press("Delete")
    lists(page, ["n4", "n3"])
    page.press("Home")
    assert page.run(focused) == "n4"
    page.press("Shift+Tab")
    assert page.run(f"{FOCUSED}.className") == "all"
    page.press("Enter")
    badge(page, "")
    page.press("Escape")
    assert page.run(expanded) == "false"
    assert page.run(name) == "Notifications"
    page.press("Space")
    assert [page.run(expanded), page.run(focused)] == ["true", "n4"]
    for _ in range(3):  # all are read: the button for that is the first in the panel, the bell is before it
        page.press("Shift+Tab")
    assert page.run("document.activeElement.id") == "out"
    assert page.run(expanded) == "false", "nothing lies over what has the focus"


def test_whatever_a_notification_holds_is_text(node: Node, shop: str, page: Browser) -> None:
    user = node.user()
    hostile = "<img src=x onerror='window.ran=1'><script>window.ran=1</script><style>*{display:none}</style>"
    for url in (
        "javascript:window.ran=1",
        "data:text/html,<script>window.ran=1</script>",
        {"x": 1},
        "https://good@evil.test/",
    ):
        node.push(shop, user_id=user.id, title=hostile, body=hostile, category=hostile[:64], data={"url": url})
    signed_in(page, user)
    opened(page, [hostile] * 4)
    assert page.run(f"[...{ROOT}.querySelectorAll('a')].map(one => one.href)") == ["https://good@evil.test/"]
    assert page.run(f"{ROOT}.querySelector('li .about').textContent").endswith("evil.test"), "where it really leads"
    inside = "img, script, style, iframe, [onerror], [style]"
    assert page.run(f"{ROOT}.querySelectorAll({json.dumps(inside)}).length") == 0
    assert page.run(f"[...{ROOT}.querySelectorAll('.body')].every(one => one.childElementCount === 0)")
    page.click("notification-inbox li:nth-child(2) .title")
    badge(page, "3")
    page.run("document.querySelector('notification-inbox').addEventListener('inbox-select', e => e.preventDefault())")
    page.click("notification-inbox a.title")  # the page has taken it into its own hands
    badge(page, "2")
    assert page.run("location.pathname") == "/demo"
    assert page.run("window.ran ?? null") is None
    page.run("(() => { try { document.body.innerHTML = 'x' } catch (e) { window.refused = e.name } })()")
    assert page.run("window.refused") == "TypeError", "no string becomes markup on this page"
    page.run("window.violations.length = 0")
    page.said.clear()


def test_older_ones_are_loaded_when_they_are_asked_for(node: Node, shop: str, page: Browser) -> None:
    user = node.user()
    node.batch(shop, *({"user_id": user.id, "title": f"n{number}"} for number in range(1, 76)))
    titles = [f"n{number}" for number in range(75, 0, -1)]
    had = user.token()  # another device has them all: this one is sent none of them
    what = {"seq": 75, "epoch": node.inbox(had)["epoch"]}
    node.request("POST", "/inbox/ack", token=had, json=what, expect=204)
    signed_in(page, user)
    asked = [url for url in page.requested if "/inbox?" in url]
    assert asked == [], "nothing is loaded for who does not look"
    badge(page, "75")
    page.run(f"{ROOT}.querySelector('.bell').focus()")
    page.press("Enter")
    page.until(f"!{ROOT}.querySelector('.older').hidden")
    assert page.run(f"{FOCUSED}.lastChild.textContent") == "n75", "once there is something to look at"
    few = page.run(f"({TITLES}).length")
    assert page.run(TITLES) == titles[:few]
    page.click("notification-inbox .older")
    page.until(f"({TITLES}).length > {few}")
    assert page.run(f"{FOCUSED}.lastChild.textContent") == titles[few]
    while not page.run(f"{ROOT}.querySelector('.older').hidden"):
        few = page.run(f"({TITLES}).length")
        page.click("notification-inbox .older")
        page.until(f"({TITLES}).length > {few}")
    assert page.run(TITLES) == titles
    node.push(shop, user_id=user.id, title="n76")
    lists(page, ["n76", *titles])


def test_the_gateway_goes_away_and_comes_back(start: Callable[..., Node], page: Browser) -> None:
    node = start()
    user, shop = node.user(), node.client_token()
    page.go(f"{node.url}/demo")
    shown(page, "sign-in")
    node.kill()
    fill_in(page, user.username, user.password)
    page.until("document.querySelector('#refused').textContent.includes('does not answer')")
    node.start()
    fill_in(page, user.username, user.password)
    connected(page)
    first = node.push(shop, user_id=user.id, title="first")["id"]
    opened(page, ["first"])
    node.kill()
    page.click("notification-inbox button.hide")
    said = f"{ROOT}.querySelector('.notice:not([hidden]) span')?.textContent"
    page.until(f"({said})?.includes('did not work')")
    page.until("document.querySelector('#state').textContent.includes('Trying again')")
    page.click("#out")
    page.until("document.querySelector('#state').textContent.includes('still signed in')")
    lists(page, ["first"])
    node.start()
    node.request("DELETE", f"/notifications/{first}", token=shop, expect=204)
    node.push(shop, user_id=user.id, title="second")
    connected(page)
    lists(page, ["second"])
    page.until(f"({said}) === undefined")
    page.click("#out")
    shown(page, "sign-in")
    assert page.run("document.querySelector('#why').hidden")
    page.go(f"{node.url}/demo")
    shown(page, "sign-in")


def test_an_admin_pushes_to_oneself(node: Node, page: Browser) -> None:
    page.go(f"{node.url}/demo")
    fill_in(page, "admin", ADMIN_PASSWORD)
    connected(page)
    page.click("#send button")
    page.until("document.querySelector('#sent').textContent === 'Sent.'")
    badge(page, "1")
    opened(page, ["Order shipped"])


def test_the_page_of_another_origin_in_its_paper(start: Callable[..., Node], tab: Callable[[], Browser]) -> None:
    """INBOX.md: a page whose own back end gives the token."""
    (body,) = re.findall(r"```html\n(.*?)```", (CLIENT / "INBOX.md").read_text("utf-8"), re.DOTALL)
    with site_with("") as site:
        site.node = node = start(allowed_origins=site.url)
        assert body.count("https://push.example.com") == 1
        site.page = "<!doctype html><link rel=icon href='data:,'>" + body.replace("https://push.example.com", node.url)
        user = node.user()
        site.refresh_token = user.sign_in()["refresh_token"]
        page = tab()
        page.go(site.url)
        page.until(f"{INBOX}?.unread === 0")
        node.push(node.client_token(), user_id=user.id, title="one", data={"url": f"{node.url}/x"})
        badge(page, "1")
        opened(page, ["one"])
        page.run(f"{INBOX}.words = {{heading: 'Neuigkeiten', bell: (n) => `Neues: ${{n}}`}}")
        page.until(f"{ROOT}.querySelector('h2').textContent === 'Neuigkeiten'")
        lists(page, ["one"])
        badge(page, "1")
        node.revoke(user_id=user.id)
        page.until(f"{ROOT}.querySelector('.notice span').textContent === 'You are signed out.'")
        lists(page, [])
        assert page.said == []


WINDOWS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True},
}
TASTES = {"light": {"color_scheme": "light"}, "dark": {"color_scheme": "dark", "reduced_motion": "reduce"}}
LOOKS = [
    pytest.param(window | taste, id=f"{size}-{colours}")
    for size, window in WINDOWS.items()
    for colours, taste in TASTES.items()
]


@needs_axe
@pytest.mark.parametrize("profile_options", LOOKS)
def test_how_it_looks(
    node: Node, shop: str, page: Browser, tmp_path: Path, profile_options: Mapping[str, object]
) -> None:
    """Nothing for axe to find, nothing wider than the window, nothing that jumps. The pictures are for people."""
    user = node.user()
    page.go(f"{node.url}/demo")
    page.run(WATCH_SHIFTS)
    shown(page, "sign-in")

    def looked(name: str) -> None:
        page.until(f"!{ROOT_IF_ANY}?.getAnimations().length")
        page.picture(tmp_path / f"{name}.png")
        assert violations(page) == [], name
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), name

    looked("1-sign-in")
    fill_in(page, user.username, "wrong")
    page.until("document.querySelector('#refused').textContent")
    looked("2-wrong")
    fill_in(page, user.username, user.password)
    connected(page)
    looked("3-home")
    page.run(f"{INBOX}.open = true")
    page.until(f"{ROOT}.querySelector('.empty').textContent === 'Nothing here yet'")
    looked("4-empty")
    assert page.run("shifts") == []
    node.push(shop, user_id=user.id, title="Order shipped", body="Arrives Friday", category="orders")
    long = "A very long word: " + "x" * 100
    node.push(shop, user_id=user.id, title=long, body="line\n" * 20, data={"url": "https://track.example.com/1"})
    page.until(f"({TITLES}).length === 2")
    page.run("new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))")
    page.run("window.shifts = []")  # a new one comes on top, and the others make room for it
    page.click("notification-inbox li:last-child .title")
    badge(page, "1")
    looked("5-list")
    assert page.run("shifts") == []
    background = f"getComputedStyle({ROOT}.querySelector('.panel')).backgroundColor"
    colours = {page.run(background)}
    page.click("#theme")
    colours.add(page.run(background))
    assert len(colours) == 2
    looked("6-the-other-theme")
    moves = page.run(f"getComputedStyle({ROOT}.querySelector('.panel')).animationName")
    assert moves == ("none" if "reduced_motion" in profile_options else "appear"), "who wants little motion gets none"


STYLED = {
    "accent": ("a.title", "color", "rgb(1, 2, 3)"),
    "background": (".panel", "background-color", "rgb(4, 5, 6)"),
    "text": (".body", "color", "rgb(7, 8, 9)"),
    "muted": (".about", "color", "rgb(10, 11, 12)"),
    "border": (".head", "border-bottom-color", "rgb(13, 14, 15)"),
    "hover": (".bell", "background-color", "rgb(16, 17, 18)"),
    "badge": (".badge", "background-color", "rgb(19, 20, 21)"),
    "badge-text": (".badge", "color", "rgb(22, 23, 24)"),
    "font": (".body", "font", "15px / 30px monospace"),
    "radius": (".panel", "border-top-left-radius", "3px"),
    "width": (".panel", "width", "300px"),
    "height": (".panel", "max-height", "250px"),
    "lines": (".body", "-webkit-line-clamp", "2"),
    "z-index": (".panel", "z-index", "77"),
}
"""What each ``--inbox-`` property changes: of which element which property, and a value it does not have by itself."""


def test_a_page_can_style_it_by_every_property_of_its_paper(node: Node, shop: str, page: Browser) -> None:
    paper = (CLIENT / "INBOX.md").read_text("utf-8")
    assert set(re.findall(r"`--inbox-([a-z-]+)`", paper)) == STYLED.keys()
    user = node.user()
    node.push(shop, user_id=user.id, title="one", body="line\n" * 9, data={"url": "https://track.example.com/1"})
    signed_in(page, user)
    opened(page, ["one"])
    page.run(f"{ROOT}.querySelectorAll('*').forEach(one => {{ one.style.transition = 'none' }})")
    for name, (selector, name_of, value) in STYLED.items():
        seen = f"getComputedStyle({ROOT}.querySelector('{selector}')).getPropertyValue('{name_of}')"
        assert page.run(seen) != value, name
        page.run(f"{INBOX}.style.setProperty('--inbox-{name}', '{value}')")
        assert page.run(seen) == value, name


@pytest.mark.parametrize("page_is", ["ltr", "rtl"])
def test_each_text_runs_and_stands_as_its_own_script_does(node: Node, shop: str, page: Browser, page_is: str) -> None:
    user = node.user()
    arabic: dict[str, Any] = {"title": "طلبك في الطريق إليك.", "body": "سيصل يوم الجمعة."}
    node.push(shop, user_id=user.id, **arabic, data={"url": "https://track.example.com/1"})
    node.push(shop, user_id=user.id, title="On its way.", body="It arrives on Friday.")
    signed_in(page, user)
    page.run(f"document.documentElement.dir = '{page_is}'")
    opened(page, ["On its way.", arabic["title"]])
    for place, runs in ((1, "ltr"), (2, "rtl")):
        item = f"{ROOT}.querySelector('li:nth-child({place})')"
        for part in (".title", ".body"):
            assert page.run(f"getComputedStyle({item}.querySelector('{part}')).direction") == runs, part
        side = "left" if runs == "ltr" else "right"
        title, text = (f"{item}.querySelector('{part}').getBoundingClientRect().{side}" for part in (".title", ".text"))
        assert page.run(f"{title} === {text}"), "it begins where its body begins"


def test_a_large_number_covers_nothing_beside_the_bell(node: Node, shop: str, page: Browser) -> None:
    user = node.user()
    node.batch(shop, *({"user_id": user.id, "title": "one"} for _ in range(100)))
    signed_in(page, user)
    badge(page, "99+")
    box = f"(one => one.getBoundingClientRect())({ROOT}.querySelector('%s'))"
    assert page.run(f"{box % '.badge'}.right <= {box % '.bell'}.right && {box % '.badge'}.left >= {box % '.bell'}.left")
