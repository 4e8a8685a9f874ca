"""The port ``KeySource`` over HTTP: one bounded GET of a JWK Set. Keeps nothing, and believes nothing it is told."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from gateway.auth.jwks import LARGEST

WITHIN = 5.0
"""Seconds for all of it: name, connection, TLS, head and body."""
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,10})", re.ASCII)
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b", re.ASCII)


class HttpKeySource:
    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        try:
            async with asyncio.timeout(WITHIN):
                return await self._get(url)
        except TimeoutError:
            raise TimeoutError(f"no answer within {WITHIN:.0f} seconds") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise OSError(f"{type(error).__name__}: {error}") from None

    async def _get(self, url: str) -> tuple[bytes, float | None]:
        # Uncompressed: a small answer must not become a large one here.
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        async with self._http.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                raise OSError(f"the answer was {answer.status_code}")
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise ValueError("the answer is compressed")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > LARGEST:
                    raise ValueError(f"more than {LARGEST} bytes")
            return bytes(body), good_for(answer.headers.get("cache-control", ""))


def good_for(cache_control: str) -> float | None:
    """Seconds, by ``max-age`` (RFC 9111 section 5.2.2). None if nothing is said."""
    said = cache_control.lower()
    if _NOT_KEPT.search(said):
        return 0.0
    found = _MAX_AGE.search(said)
    return float(found[1]) if found else None


@asynccontextmanager
async def key_source() -> AsyncIterator[HttpKeySource]:
    """It goes straight to the address of the setting: no redirect, no proxy and no ``.netrc`` of the environment. Who
    vouches for that address is what the system trusts (or ``SSL_CERT_FILE``, for a company's own authority)."""
    async with httpx2.AsyncClient(
        verify=ssl.create_default_context(), trust_env=False, follow_redirects=False, timeout=WITHIN
    ) as http:
        yield HttpKeySource(http)
