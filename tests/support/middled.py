"""A gateway behind one more HTTP middleware, which refuses or lets in whoever asks. Run as a program, it serves.

``middled.py refuse serve``: ``/inbox`` is 418 for everybody; ``middled.py "let in" serve``: it is 200 for everybody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


def _between(verdict: str) -> None:
    """From now on every application that is made has the middleware, in FastAPI's own way."""
    from fastapi import Request, Response

    from gateway import app as making

    create = making.create_app

    def create_app(*given: Any, **more: Any) -> making.GatewayApp:
        app = create(*given, **more)

        @app.middleware("http")
        async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
            if request.url.path != "/inbox":
                return await go_on(request)
            return Response(status_code=418 if verdict == "refuse" else 200)

        return app

    making.create_app = create_app


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))  # the support of the tests is nothing the gateway imports
    _between(sys.argv.pop(1))
    os.environ.pop("PYTHONPATH", None)
    from gateway.cli import main

    main()
