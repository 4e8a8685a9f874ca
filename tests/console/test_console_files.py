"""The console's files: what is served under which policy, what caches may keep, and that others' files are theirs."""

from __future__ import annotations

import hashlib
import re

import pytest
from hostile import is_problem
from wire import Node

from gateway.api.console import FILES, KINDS, POLICY, routes
from gateway.app import create_app
from gateway.settings import read_settings

NAMES = sorted(str(file.relative_to(FILES)) for file in FILES.rglob("*") if file.suffix in KINDS)


def test_it_is_for_loopback_unless_the_operator_says_so() -> None:
    for host, on in (("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("192.0.2.1", False)):
        for setting, served in (("auto", on), ("on", True), ("off", False)):
            app = create_app(read_settings({"GATEWAY_HOST": host, "GATEWAY_CONSOLE": setting}))
            paths = {getattr(route, "path", "") for route in app.routes}
            assert {route.path in paths for route in routes()} == {served}, (host, setting)


def test_the_page_may_load_and_run_nothing_but_what_is_served_here(node: Node) -> None:
    answer = node.request("GET", "/console", expect=200)
    assert answer.headers.get_list("content-security-policy") == [POLICY]
    policy = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert policy.pop("default-src") == "'none'"
    assert all(value in ("'self'", "'none'", "'script'") for value in policy.values()), "no inline, no eval, no host"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"//|\son\w+=|style=|<style|javascript:", answer.text.partition("<head>")[2])
    assert all("src=" in tag for tag in re.findall(r"<script\b[^>]*>", answer.text))
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        node.request("GET", f"/{address}", expect=200)


def test_what_it_loads_is_what_it_says_and_is_kept_as_long_as_it_may(node: Node) -> None:
    for name in NAMES:
        path = "/console" if name == "index.html" else f"/console/{name}"
        answer = node.request("GET", path, expect=200)
        content = (FILES / name).read_bytes()
        assert answer.content == content
        assert answer.headers["content-type"].split(";")[0] == KINDS["." + name.rpartition(".")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"
        kept = "public, max-age=31536000, immutable" if name.startswith("vendor/") else "no-cache"
        assert answer.headers.get_list("cache-control") == [kept]
        etag = answer.headers["etag"]
        assert etag.strip('"') == hashlib.sha256(content).hexdigest()[:32]
        for given in (etag, f'"other", W/{etag}'):
            again = node.request("GET", path, headers={"If-None-Match": given}, expect=304)
            assert again.content == b""
            assert again.headers["etag"] == etag
        node.request("GET", path, headers={"If-None-Match": '"other"'}, expect=200)


@pytest.mark.parametrize("path", ["/console/", "/console/index.html", "/console/vendor/README.md", "/console/x.js"])
def test_nothing_else_is_served(node: Node, path: str) -> None:
    is_problem(node.request("GET", path), 404, "not_found")
    node.request("GET", "/console/..%2fapi%2fconsole.py", expect=404)
    node.request("GET", "/console/vendor/preact-11.2.0/LICENSE", expect=404)


def test_the_files_of_others_are_those_that_were_published() -> None:
    """The hashes stand beside them; whoever renews them changes both. One line was changed: it is undone here."""
    vendor = FILES / "vendor"
    listed = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (vendor / "README.md").read_text("utf-8")))
    found = {}
    for file in vendor.rglob("*"):
        if file.is_file() and file.name != "README.md":
            content = file.read_bytes()
            if file.name == "hooks.mjs":
                assert content.count(b'from"./preact.mjs"') == 1
                content = content.replace(b'from"./preact.mjs"', b'from"preact"')
            found[str(file.relative_to(vendor))] = hashlib.sha256(content).hexdigest()
    assert found == listed
    for directory in (one for one in vendor.iterdir() if one.is_dir()):
        assert (directory / "LICENSE").exists()


def test_our_modules_load_nothing_from_elsewhere_and_make_no_markup_of_text() -> None:
    for name in NAMES:
        if not name.startswith("vendor/"):
            text = (FILES / name).read_text("utf-8")
            assert not re.search(r"innerHTML|document\.write|\beval\b|localStorage|sessionStorage|new Function", text)
            assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), name
            assert len(text.splitlines()) <= 300, name
            for target in re.findall(r"from '([^']+)'", text):
                assert (FILES / target).exists(), (name, target)
