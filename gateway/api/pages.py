"""The interactive page ``/docs``, served from here to its last byte under a strict policy. What it shows is not here.

FastAPI's own page loads its script from another host: it is blank without the Internet, and whoever owns that host
could read what is typed into it.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

SWAGGER_UI = "swagger-ui-5.35.0"
ASSETS = Path(__file__).parent / "assets"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No inline script or style, no eval, no other host. ``data:`` is for the arrows in the style sheet."""
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""The version stands in the path."""


def routes() -> list[Route]:
    """The page and what it loads."""
    page = (ASSETS / "docs.html").read_text("utf-8").replace("{swagger_ui}", SWAGGER_UI)

    async def docs(request: Request) -> Response:
        headers = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}
        return Response(page, headers=headers, media_type="text/html")

    return [
        Route("/docs", docs, include_in_schema=False),
        _file("docs.js", "text/javascript"),
        _file(f"{SWAGGER_UI}/swagger-ui-bundle.js", "text/javascript", _FOR_EVER),
        _file(f"{SWAGGER_UI}/swagger-ui.css", "text/css", _FOR_EVER),
    ]


def _file(name: str, media_type: str, headers: dict[str, str] | None = None) -> Route:
    async def answer(request: Request) -> Response:
        # Without ranges: Starlette refuses a bad one in a language of its own, and nobody needs a part of these.
        request.scope["headers"] = [field for field in request.scope["headers"] if field[0] != b"range"]
        return FileResponse(ASSETS / name, headers=headers, media_type=media_type)

    return Route(f"/docs/{name}", answer, include_in_schema=False)
