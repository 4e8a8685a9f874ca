"""Who signs in, and from where: addresses behind a proxy that is trusted, and several at once. Asserts nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import httpx2
from wire import Node

PROXIED: Mapping[str, Any] = {"forwarded_allow_ips": "127.0.0.1"}
"""Settings of a node that believes what ``login(at=…)`` says."""


def login(node: Node, username: str, password: str, *, at: str | None = None, **headers: str) -> httpx2.Response:
    """``at``: what a proxy says about the client's address."""
    said = {"X-Forwarded-For": at} if at is not None else {}
    body = {"username": username, "password": password}
    return node.request("POST", "/auth/login", json=body, headers={**said, **headers})


def token(node: Node, *, at: str | None = None, auth: tuple[str, str] | None = None, **form: str) -> httpx2.Response:
    """``POST /auth/token``."""
    said = {"X-Forwarded-For": at} if at is not None else {}
    more: dict[str, Any] = {} if auth is None else {"auth": auth}
    return node.request("POST", "/auth/token", data=form, headers=said, **more)


def statuses(answers: Iterable[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@contextlib.asynccontextmanager
async def crowd(node: Node, *, at: str | None = None, connections: int = 200) -> AsyncIterator[httpx2.AsyncClient]:
    """A client for many requests at once, all from ``at``."""
    said = {"X-Forwarded-For": at} if at is not None else {}
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx2.AsyncClient(base_url=node.url, timeout=60, headers=said, limits=limits, verify=False) as client:
        yield client


async def guesses(client: httpx2.AsyncClient, amount: int, **body: str) -> list[httpx2.Response]:
    """So many sign-ins at once."""
    return await asyncio.gather(*(client.post("/auth/login", json=body) for _ in range(amount)))


def networks(amount: int) -> list[str]:
    """An address in each of so many networks."""
    return [f"10.{number // 250}.{number % 250}.1" for number in range(amount)]
