"""The README's page in ten lines works as pasted: its commands are run, a real Chromium shows what comes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from browser import Browser, needs_browser
from freeport import free_port
from pasted import blocks, replaced, run, running, section

pytestmark = needs_browser
TITLE = "A page in ten lines"
SHOWN = "[...document.querySelectorAll('li')].map(item => item.textContent)"


def test_the_page_of_the_readme_works_as_pasted(tmp_path: Path, tab: Callable[[], Browser]) -> None:
    text = section(TITLE)
    (page,) = blocks("html", text)
    assert len(page.splitlines()) <= 10
    serve, site, push = blocks("sh", text)
    gateway, pages = free_port(), free_port()
    here = {"127.0.0.1:3000": f"127.0.0.1:{pages}"}
    settings = {
        "GATEWAY_PORT": str(gateway),
        "GATEWAY_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/gateway.db",
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "NOTIFY_URL": f"http://127.0.0.1:{gateway}",
    }
    (tmp_path / "clients").symlink_to(Path.cwd() / "clients")
    (made,) = re.findall(r"[Ss]ave this as `(\S+)`", text)
    prepare, host = site.strip().splitlines()
    host = replaced(host, {" 3000 ": f" {pages} "})
    run(prepare, directory=tmp_path)
    (tmp_path / made).write_text(replaced(page, {"127.0.0.1:8000": f"127.0.0.1:{gateway}"}))
    with (
        running(replaced(serve, here), tmp_path / "serve.log", settings, ready="The gateway is ready"),
        running(host, tmp_path / "site.log", ready="Serving", directory=tmp_path),
    ):
        session = section("A session")
        (alice,) = re.findall(r"^ops\$ (echo .* gateway user add alice .*)$", session, re.MULTILINE)
        (client,) = re.findall(r"^ops\$ (gateway client add .*)$", session, re.MULTILINE)
        said = run(f"{alice}\n{client}", settings)
        id, secret = (re.findall(rf"^client_{name}: +(\S+)$", said, re.MULTILINE)[0] for name in ("id", "secret"))
        pushing = {**settings, "NOTIFY_CLIENT_ID": id, "NOTIFY_CLIENT_SECRET": secret}
        run("gateway send 42 Earlier", pushing)
        (url,) = re.findall(r"<(http://127\.0\.0\.1:3000/)>", text)
        shown = tab()
        shown.go(replaced(url, here))
        assert shown.until(f"{SHOWN}.length && {SHOWN}") == ["Earlier"], "what was stored before anybody listened"
        assert "42 is online" in run(push, pushing)
        assert shown.until(f"{SHOWN}.length > 1 && {SHOWN}") == ["Earlier", "Hello, page"]
        shown.until("unread.textContent === '2'")
        assert [one for one in shown.said if "404" not in one] == [], "it has no icon, and needs nothing else"
