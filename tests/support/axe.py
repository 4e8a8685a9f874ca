"""axe-core on a page that a browser shows: what keeps people from using it, as far as a program sees. Asserts nothing.

`make test` installs it from ``npm/package-lock.json``, beside here, which pins it with its hash.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import Browser

SOURCE = Path(__file__).parent / "npm" / "node_modules" / "axe-core" / "axe.min.js"
needs_axe = pytest.mark.skipif(
    not SOURCE.exists() and not os.environ.get("CI"),
    reason="no axe-core (npm ci --prefix tests/support/npm); on CI that is a failure",
)
_RUN = """axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.flatMap(
  ({id, impact, help, nodes}) => nodes.map(
    ({target, html}) => `${impact} ${id}: ${help}: ${target} ${html.slice(0, 200)}`)
))"""


def violations(page: Browser) -> list[str]:
    """What axe finds wrong with the page as it is now, open shadow roots with it: each begins with its impact (minor,
    moderate, serious, critical) and the rule. All rules of WCAG 2.2 A and AA that it has, and its best practices."""
    if not page.run("typeof axe === 'object'"):
        page.run(f"{SOURCE.read_text('utf-8')}; 0")
    return list(page.run(_RUN))
