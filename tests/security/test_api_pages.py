"""API-17, API-18: the interactive page comes whole from the gateway, under a policy that a real browser enforces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from browser import Browser, Chromium, needs_browser
from freeport import free_port
from hostile import is_problem
from rawpeer import eventually
from wire import ADMIN_PASSWORD, Node, running

from gateway.api.pages import ASSETS, SWAGGER_UI, routes
from gateway.app import create_app
from gateway.settings import read_settings

FILES = ("/docs", "/docs/docs.js", f"/docs/{SWAGGER_UI}/swagger-ui-bundle.js", f"/docs/{SWAGGER_UI}/swagger-ui.css")
DIRECTIVES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}

NO_MARKUP = {"require-trusted-types-for": "'script'", "trusted-types": "'none'"}
PAGES = {
    "/docs": DIRECTIVES,
    "/console": DIRECTIVES | NO_MARKUP | {"img-src": "'self'"},
    "/demo": DIRECTIVES | NO_MARKUP | {"img-src": "data:"},
}
"""Every page, and what its policy allows."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """As an operator would run it in public: no interactive documentation, metrics on a port of their own."""
    with running(tmp_path_factory.mktemp("guarded"), docs="off", metrics_port=free_port()) as node:
        yield node


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    with chromium.profile() as tab:
        yield tab()


# -- who is shown it -----------------------------------------------------------------------------------------------


def test_API_17_the_page_is_for_loopback_unless_the_operator_says_so(node: Node, guarded: Node) -> None:
    for path in (*FILES, "/openapi.json"):
        node.request("GET", path, expect=200)
        is_problem(guarded.request("GET", path), 404, "not_found")
    for one in (node, guarded):
        for path in ("/redoc", "/docs/oauth2-redirect", "/docs/", "/docs/README.md"):
            is_problem(one.request("GET", path), 404, "not_found")
        one.request("GET", "/docs/..%2fpages.py", expect=404)
    for host, on in (("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("192.0.2.1", False)):
        for setting, served in (("auto", on), ("on", True), ("off", False)):
            app = create_app(read_settings({"GATEWAY_HOST": host, "GATEWAY_DOCS": setting}))
            paths = {getattr(route, "path", "") for route in app.routes}
            assert {path in paths for path in (*FILES, "/openapi.json")} == {served}, (host, setting)


def test_API_17_whatever_needs_a_scope_asks_for_it(node: Node, shop: str) -> None:
    document = node.request("GET", "/openapi.json", expect=200).json()
    token, asked = node.user().token(), 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            target = path.replace("{id}", "some").replace("{client_id}", "c~some").replace("{sid}", "some")
            needs = next((one["oauth2"] for one in operation.get("security", []) if "oauth2" in one), None)
            assert (needs == ["admin"]) == (path.startswith("/admin") or path == "/metrics")
            if needs is None:
                continue
            asked += 1
            if path == "/events":  # says it as an event: a page's EventSource could not read a status
                for whose, reason in ((None, "token_missing"), (shop, "insufficient_scope")):
                    answer = node.request("GET", target, token=whose, expect=200)
                    assert f'"reason":"{reason}"' in answer.text, answer.text
                    assert answer.text.count("event: ") == answer.text.count("event: close") == 1
                continue
            is_problem(node.request(method.upper(), target), 401, "token_missing")
            for who, scopes in ((token, {"inbox"}), (shop, {"notifications:write"})):
                if not set(needs) <= scopes:
                    answer = node.request(method.upper(), target, token=who)
                    assert is_problem(answer, 403, "insufficient_scope")["scope"] == needs[0]
    assert asked > 25


def test_API_17_metrics_need_a_scope_or_have_a_port_of_their_own(node: Node, guarded: Node) -> None:
    for one in (node, guarded):
        is_problem(one.request("GET", "/metrics"), 401, "token_missing")
        assert "gateway_" in one.request("GET", "/metrics", token=one.admin, expect=200).text
    own = int(str(guarded.settings["metrics_port"]))
    assert "gateway_" in httpx2.get(f"http://127.0.0.1:{own}/metrics", verify=False).text
    # On loopback alone: nobody on another machine can connect.
    sockets = [line.split() for line in Path(f"/proc/{guarded.pid}/net/tcp").read_text().splitlines()[1:]]
    assert {local.split(":")[0] for _, local, *_ in sockets if local.endswith(f":{own:04X}")} == {"0100007F"}


# -- what it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_API_18_the_page_may_load_and_run_nothing_but_what_is_served_here(node: Node, page: str) -> None:
    answer = node.request("GET", page, expect=200)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    (policy,) = answer.headers.get_list("content-security-policy")
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == PAGES[page]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("referrer-policy") == ["no-referrer"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] in ("no-store", "no-cache"), "nobody is shown an old one"
    assert not re.search(r"//|\son\w+=|style=|<style|javascript:", answer.text.partition("<head>")[2])
    assert all("src=" in tag for tag in re.findall(r"<script\b[^>]*>", answer.text))
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert address == "data:," or node.request("GET", f"/{address}").status_code == 200


def test_API_18_what_the_page_loads_is_what_it_says(node: Node) -> None:
    for path in FILES[1:]:
        answer = node.request("GET", path, expect=200)
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        kept = "no-store" if path.endswith("docs.js") else "public, max-age=31536000, immutable"
        assert answer.headers.get_list("cache-control") == [kept], "what is kept for ever has its version in its path"


def test_the_files_of_others_are_those_that_were_published() -> None:
    """The hashes stand beside them; whoever renews them changes both."""
    listed = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (ASSETS / "README.md").read_text("utf-8")))
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (ASSETS / SWAGGER_UI).iterdir()}
    assert found == listed
    assert {"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} <= found.keys()
    assert len(routes()) == len(FILES)


# -- what a browser makes of it ------------------------------------------------------------------------------------


@needs_browser
def test_API_18_the_page_works_without_the_internet_and_within_its_policy(node: Node, browser: Browser) -> None:
    """Signing in by its form, and one request with the token it got."""
    browser.go(f"{node.url}/docs")
    browser.until("document.querySelectorAll('.opblock').length > 20")
    browser.click(".btn.authorize")
    browser.fill("#oauth_username", "admin")
    browser.fill("#oauth_password", ADMIN_PASSWORD)
    browser.click(".auth-container:has(#oauth_username) .btn.authorize")
    browser.until("!document.querySelector('#oauth_password')")  # it has its token
    browser.click(".close-modal")

    browser.click("#operations-auth-me_auth_me_get .opblock-summary-control")
    browser.click("#operations-auth-me_auth_me_get .try-out__btn")
    browser.click("#operations-auth-me_auth_me_get .execute")
    row = "#operations-auth-me_auth_me_get .live-responses-table .response"
    assert browser.until(f"document.querySelector('{row} .response-col_status')?.innerText").startswith("200")
    assert '"admin"' in browser.run(f"document.querySelector('{row}').innerText")

    assert browser.run("window.violations") == []
    assert browser.said == []
    elsewhere = [url for url in browser.requested if not url.startswith((f"{node.url}/", "data:image/svg+xml"))]
    assert elsewhere == []


@needs_browser
def test_API_18_what_is_slipped_into_the_page_does_not_run(node: Node, browser: Browser) -> None:
    browser.go(f"{node.url}/docs?url={node.url}/evil.json&configUrl={node.url}/evil.json")
    browser.until("document.querySelectorAll('.opblock').length > 20")
    assert not [url for url in browser.requested if "/evil.json" in url.partition("?")[0]], "no document of others"
    slipped = "<img src=x onerror='window.ran=1'><style>body{display:none}</style><a href='javascript:window.ran=1'>"
    browser.run(f"document.body.insertAdjacentHTML('beforeend', {slipped!r})")
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran=1'}))")
    browser.run("document.querySelector('a[href^=javascript]').click()")
    # In a task of its own: what asks the page for something may use eval as long as it runs.
    later = "new Promise(done => setTimeout(() => { try { done(eval('1')) } catch { done('no eval') } }))"
    assert browser.run(later) == "no eval"
    assert browser.run("fetch('http://127.0.0.1:9/').then(() => 'out', () => 'kept in')") == "kept in"
    browser.until("window.violations.length >= 5")
    assert browser.run("window.ran ?? null") is None


@needs_browser
def test_API_18_no_page_is_framed(node: Node, browser: Browser, tmp_path: Path) -> None:
    """Neither the page, nor JSON: whoever frames it could have it clicked."""
    frames = "".join(f"<iframe src='{node.url}{path}'></iframe>" for path in ("/docs", "/healthz"))
    (tmp_path / "frame.html").write_text(frames)
    browser.go(f"file://{tmp_path}/frame.html")
    eventually(lambda: sum("frame-ancestors" in text for text in browser.said) == 2)


@needs_browser
def test_API_15_a_browser_lets_pages_of_the_list_read_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, node: Node, chromium: Chromium
) -> None:
    """Two gateways: the page of the first is of another origin to the second."""
    for origins, says in ((node.url, "401 token_missing"), ("https://app.example", "kept out")):
        with (
            running(tmp_path_factory.mktemp("second"), allowed_origins=origins) as second,
            chromium.profile(bypass_csp=True) as tab,  # for once: no page of ours may speak to another origin
        ):
            browser = tab()
            browser.go(f"{node.url}/docs")
            asked = (
                f"fetch('{second.url}/notifications', {{method: 'POST', body: '{{}}', "
                "headers: {'Content-Type': 'application/json', 'Idempotency-Key': 'x'}})"
                ".then(async r => r.status + ' ' + (await r.json()).code, () => 'kept out')"
            )
            assert browser.run(asked) == says
