"""The hook and the bell of ``docs/guides/react.md`` in a real Chromium, their JSX compiled as a bundler does it.

What renders them is Preact, which the console has anyway and which keeps React's interface in all that they use; React
itself is no module that a browser loads without a bundler.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable

import pytest
from browser import Browser, needs_browser
from jsclient import needs_node, run_node, site_with
from wire import ROOT, Node

COMPILER = ROOT / "tests" / "support" / "npm" / "node_modules" / "typescript" / "lib" / "typescript.js"
PREACT = ROOT / "gateway" / "console" / "vendor" / "preact-11.2.0"
pytestmark = [
    needs_browser,
    needs_node,
    pytest.mark.skipif(
        not COMPILER.exists() and not os.environ.get("CI"),
        reason="no TypeScript (npm ci --prefix tests/support/npm); on CI that is a failure",
    ),
]
IMPORTS = {
    "react": "/hooks.mjs",
    "react/jsx-runtime": "/jsx.mjs",
    "notification-gateway-client": "/gateway.min.js",
}
JSX = """import { h } from "./preact.mjs";
export const jsx = (type, { children, ...properties }, key) => h(type, { ...properties, key }, children);
export const jsxs = (type, { children, ...properties }, key) => h(type, { ...properties, key }, ...children);
"""
PAGE = f"""<!doctype html><meta charset=utf-8><link rel=icon href="data:,">
<script type="importmap">{json.dumps({"imports": IMPORTS})}</script>
<div id="root"></div>
<script type="module">
  import {{ h, render }} from "./preact.mjs";
  import {{ Bell }} from "./bell.js";
  render(h(Bell), root);
</script>
"""
SHOWN = "[...document.querySelectorAll('#root li')].map(one => [one.textContent, one.style.fontWeight].join())"


def guide(language: str) -> str:
    text = (ROOT / "docs" / "guides" / "react.md").read_text("utf-8")
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(code)


def compiled(jsx: str) -> str:
    """Raises AssertionError if it is no JSX."""
    program = """
      const ts = (await import(process.argv[1])).default;
      const { JsxEmit: { ReactJSX: jsx }, ModuleKind: { ESNext: module }, ScriptTarget: { ES2022: target } } = ts;
      const how = { fileName: "bell.jsx", compilerOptions: { jsx, module, target }, reportDiagnostics: true };
      const made = ts.transpileModule(process.argv[2], how);
      for (const { messageText } of made.diagnostics) throw new Error(messageText);
      process.stdout.write(made.outputText);
    """
    return run_node("--input-type=module", "--eval", program, str(COMPILER), jsx)


def test_the_bell_of_the_guide_shows_what_comes_and_marks_it_as_read(
    start: Callable[..., Node], tab: Callable[[], Browser]
) -> None:
    bell = guide("jsx")
    assert bell.count("https://push.example.com") == 1
    with site_with(PAGE) as site:
        site.node = node = start(allowed_origins=site.url)
        site.scripts = {f"/{name}": (PREACT / name).read_text("utf-8") for name in ("preact.mjs", "hooks.mjs")}
        site.scripts |= {"/jsx.mjs": JSX, "/useNotifications.js": guide("js")}
        site.scripts["/bell.js"] = compiled(bell.replace("https://push.example.com", node.url))
        user, shop = node.user(), node.client_token()
        site.refresh_token = user.sign_in()["refresh_token"]
        node.push(shop, user_id=user.id, title="one")
        page = tab()
        page.go(site.url)
        page.until("document.querySelector('summary')?.ariaLabel === '1 unread notifications'")
        page.click("summary")
        page.until(f"{SHOWN}.join('|') === 'one,bold'")
        node.push(shop, user_id=user.id, title="two")
        page.until(f"{SHOWN}.join('|') === 'two,bold|one,bold'")
        page.click("li:last-child button")
        page.until(f"{SHOWN}.join('|') === 'two,bold|one,normal'")
        page.until("document.querySelector('summary').textContent === '🔔 1'")
        node.revoke(user_id=user.id)
        page.until("document.querySelector('#root a')?.textContent === 'Sign in again'")
        assert page.run("document.querySelector('#root a').pathname") == "/sign-in"
        assert page.said == []
