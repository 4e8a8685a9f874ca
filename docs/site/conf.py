"""How ``make docs`` makes a site of the papers, in ``docs/site/html``. Sphinx reads this; nothing else does.

Sphinx is kept up (MkDocs 1 is not, its theme Material is at its end, Zensical is young), reads Markdown where
it lies (the README and the papers of the clients too), and with ``-W`` follows every link and every anchor. The pages
ask no other host for anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

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
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """A diagram stands as its text, which says the same; whoever hosts the repository draws it."""
    app.add_lexer("mermaid", TextLexer)
    app.add_lexer("console", TextLexer)
