"""The administrators' console ``/console``: its files, as they lie in ``gateway/console``, under a strict policy.

No data here: the page signs in and asks ``/admin`` as any other client does. Who may not, sees a form and no more.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FILES = Path(__file__).parent.parent / "console"
VENDOR = "vendor/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No inline script or style, no eval, no other host, and no string becomes markup, whatever a name or a title holds."""
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
"""What is served, by the end of its name. Licences and notes lie beside it for who reads the source."""
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"


def routes() -> list[Route]:
    """The page, and what it loads. Each file has a path of its own: none is looked for by what was asked."""
    names = sorted(str(file.relative_to(FILES)) for file in FILES.rglob("*") if file.suffix in KINDS)
    return [_route(f"/console/{name}" if name != "index.html" else "/console", name) for name in names]


def _route(path: str, name: str) -> Route:
    kind = KINDS[Path(name).suffix]
    # What is others' has its version in its path; ours is asked for anew, and answered 304 while it is the same.
    kept = _FOR_EVER if name.startswith(VENDOR) else _ASK_FIRST

    async def answer(request: Request) -> Response:
        content, etag = _content(name)
        headers = {"ETag": etag, "Cache-Control": kept}
        if name == "index.html":
            headers |= {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
        if etag in _known(request):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return Route(path, answer, include_in_schema=False)


@cache
def _content(name: str) -> tuple[bytes, str]:
    """A file and its entity tag, read once in the life of a process."""
    content = (FILES / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _known(request: Request) -> set[str]:
    """The tags of what the browser has (RFC 9110 section 13.1.2, by weak comparison)."""
    return {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
