"""The page ``/demo``: signs in by cookie and shows ``<notification-inbox>``, under a strict policy. Decides nothing.

The element and the client under it are those of ``clients/js``, the same files: in the package if it is installed, else
in the repository.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import gateway

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No inline script or style, no eval, no other host, and no string becomes markup, whatever a notification holds."""
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""The hash of everything stands in the path."""
_KINDS = {".js": "text/javascript", ".css": "text/css"}


def routes() -> list[Route]:
    """The page and what it loads."""
    package = Path(gateway.__file__).parent
    files = {name: (package / "demo" / name).read_bytes() for name in ("demo.css", "demo.js")} | client_files()
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(files[name]).digest())
    version = digest.hexdigest()[:16]
    page = (package / "demo" / "index.html").read_text("utf-8").replace("{version}", version)
    framing = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
    return [
        _route("/demo", page.encode(), "text/html", framing),
        *(_route(f"/demo/{version}/{name}", files[name], _KINDS[Path(name).suffix], _FOR_EVER) for name in files),
    ]


def client_files() -> dict[str, bytes]:
    """The inbox and the client it loads, as a page needs them beside each other: path → content."""
    package = Path(gateway.__file__).parent
    installed = package / "_clients"
    home = installed if installed.is_dir() else package.parent / "clients" / "js"
    found = [home / "gateway.min.js", *sorted((home / "inbox").glob("*.js"))]
    return {file.relative_to(home).as_posix(): file.read_bytes() for file in found}


def _route(path: str, content: bytes, kind: str, headers: dict[str, str]) -> Route:
    async def answer(request: Request) -> Response:
        return Response(content, headers=headers, media_type=kind)

    return Route(path, answer, include_in_schema=False)
