"""``/demo``: what it is served with, to whom, and that it is the files of ``clients/js`` and no others."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.api import demo
from gateway.app import create_app
from gateway.settings import read_settings

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients" / "js"


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=demo.routes()))


def loaded(client: TestClient) -> dict[str, str]:
    """Everything the page loads, as a browser finds it: path → text."""
    found: dict[str, str] = {}
    wanted = re.findall(r'(?:src|href)="(demo/[^"]+)"', client.get("/demo").text)
    while wanted:
        path = wanted.pop()
        if path in found:
            continue
        answer = client.get(f"/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].split(";")[0] == demo._KINDS[Path(path).suffix]
        found[path] = answer.text
        for other in re.findall(r'^import .*?"(\.[^"]+)";', answer.text, re.MULTILINE):
            wanted.append(str(Path("/", path).parent.joinpath(other).resolve())[1:])
    return found


def test_the_page_allows_what_is_served_here_and_no_markup_from_strings(client: TestClient) -> None:
    answer = client.get("/demo")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-frame-options"] == "DENY"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert not re.search(r"//|\son\w+=|style=|<style|javascript:", answer.text.partition("<head>")[2])


def test_what_is_kept_for_ever_has_the_hash_of_it_all_in_its_path(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = loaded(client)
    (version,) = {path.split("/")[1] for path in paths}
    changed = demo.client_files() | {"inbox/words.js": b"// another"}
    monkeypatch.setattr(demo, "client_files", lambda: changed)
    assert version not in TestClient(Starlette(routes=demo.routes())).get("/demo").text


def test_the_page_loads_the_files_of_the_client_and_they_are_all_there(client: TestClient) -> None:
    texts = {path.split("/", 2)[2]: text for path, text in loaded(client).items()}
    assert texts.keys() == {"demo.css", "demo.js", *demo.client_files()}
    for name in demo.client_files():
        assert texts[name] == (CLIENTS / name).read_text("utf-8")


def test_a_package_and_an_image_hold_them_too() -> None:
    included = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["force-include"]
    taken = {there: here for here, there in included.items() if there.startswith("gateway/_clients/")}
    assert taken == {f"gateway/_clients/{name}": f"clients/js/{name}" for name in ("gateway.min.js", "inbox")}
    assert "COPY clients/js /opt/gateway/src/clients/js" in (ROOT / "Dockerfile").read_text("utf-8")
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {"!clients/js/gateway.min.js", "!clients/js/inbox"} <= set(ignored)


@pytest.mark.parametrize(("setting", "host", "served"), [
    ("auto", "127.0.0.1", True), ("auto", "0.0.0.0", False), ("off", "127.0.0.1", False), ("on", "0.0.0.0", True),
])  # fmt: skip
def test_it_is_shown_where_the_documentation_is(setting: str, host: str, served: bool) -> None:
    app = create_app(read_settings({"GATEWAY_HOST": host, "GATEWAY_DOCS": setting}))
    paths = [getattr(route, "path", "") for route in app.routes]
    assert any(path.startswith("/demo") for path in paths) is served
