"""How ``make docs`` makes a site of the papers, in ``docs/site/html``. Sphinx reads this; nothing else does.

Sphinx is kept up (MkDocs 1 is not, its theme Material is at its end, Zensical is young), reads Markdown where
it lies (the README and the papers of the clients too), and with ``-W`` follows every link and every anchor. The pages
ask no other host for anything.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

sys.path.insert(0, str(Path(__file__).parent))
from reference import document, markdown

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Notification gateway"
copyright = "its authors, MIT licence"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "clients/js/*.md"]
exclude_patterns = [".*", "var", "gateway", "tests", "benchmarks", "migrations", "docs/site", "**/node_modules"]

myst_heading_anchors = 4
myst_enable_extensions = ["fieldlist"]
suppress_warnings = [
    "misc.highlighting_failure",  # a JSON with an ellipsis in it is no JSON, and is meant for people
]

html_theme = "furo"
html_title = project
html_extra_path = ["root"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """What the papers cannot hold themselves, for it is made from the code."""
    app.add_lexer("console", TextLexer)
    app.connect("env-get-outdated", lambda *_: ["docs/openapi"])  # the code has changed, for all that is known
    app.connect("source-read", _with_reference)
    app.connect("build-finished", _with_document)


def _with_reference(app: Sphinx, name: str, source: list[str]) -> None:
    """Where the repository has only a word about OpenAPI, the site has every call."""
    if name == "docs/openapi":
        source[0] += f'\nOr as a file: <a href="../openapi.json">openapi.json</a>.\n\n{markdown(document())}'


def _with_document(app: Sphinx, failed: Exception | None) -> None:
    if failed is None:
        Path(app.outdir, "openapi.json").write_text(json.dumps(document(), indent=1), encoding="utf-8")
