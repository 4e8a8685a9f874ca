"""``Gateway`` and ``AsyncGateway``: what a backend service sends with. Only the I/O: ``calls.py`` decides."""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import httpx2

from gateway.client.addresses import is_local
from gateway.client.answers import Answer, Silence
from gateway.client.calls import Bearer, Calls, Flow, Request, Step, Wait
from gateway.client.errors import GatewayError, Refused
from gateway.client.values import Priority, Push, Pushed, Receipt, Result

T = TypeVar("T")
TIMEOUT, DEADLINE, ATTEMPTS = 10.0, 30.0, 10
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""After these nothing has gone out."""
KEPT = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=20.0)
"""The gateway closes an idle connection after 30 seconds: one that might be closing just now is not used."""


class Gateway:
    """A backend service at its gateway, without an event loop. May be used by several threads at once.

    Nothing is sent before the first call; the token is fetched then, and renewed before it expires. ``timeout``:
    seconds for connecting, and for any wait for the next bytes. ``deadline``: seconds for one call with all its
    retries, at most ``attempts`` of them (of ``push_many``: for each batch). ``tls``: another than the system's trust.
    ``token``: an access token in the place of id and secret, good until it expires. Raises ValueError without either,
    and for a ``url`` that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT,
        deadline: float = DEADLINE,
        attempts: int = ATTEMPTS,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._calls = Calls(
            url,
            client_id=client_id,
            client_secret=client_secret,
            token=token,
            timeout=timeout,
            deadline=deadline,
            attempts=attempts,
            clock=clock,
            random=random,
        )
        base, outside = self._calls.url, not is_local(self._calls.url)
        self._http = httpx2.Client(
            base_url=base, trust_env=outside, verify=tls or True, limits=KEPT, transport=transport
        )  # fmt: skip
        self._sleep, self._renewing = sleep, threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def push(
        self,
        *,
        title: str,
        user_id: str | None = None,
        user_ids: Iterable[str] | None = None,
        everyone: bool = False,
        body: str | None = None,
        data: Mapping[str, Any] | None = None,
        category: str | None = None,
        priority: Priority | None = None,
        ttl: int | None = None,
        idempotency_key: str | None = None,
    ) -> Pushed:
        """Send one notification to exactly one of ``user_id``, ``user_ids``, ``everyone``.

        What is None is left to the gateway. With a ``ttl`` (seconds) above 0, or none, it is durable when this
        returns, and a retry never makes it two. With ``ttl=0`` it is stored nowhere and shown to who is connected.
        Raises Invalid, Unauthorized, Forbidden, NotFound, another Refused, RateLimited, Unavailable.
        """
        return self._run(
            self._calls.push(
                idempotency_key=idempotency_key,
                **target(user_id, user_ids, everyone=everyone),
                **{"title": title, "body": body, "data": data, "category": category, "priority": priority, "ttl": ttl},
            )
        )

    def push_many(self, items: Iterable[Push]) -> list[Result]:
        """Send each of these by itself, in batches. One result for each, in order; look at their ``ok``.

        Items that are told to come again are sent again, within the deadline of their batch. Raises what ``push``
        raises if a whole batch is refused or not answered: then the error's ``results`` has what is known of every
        item.
        """
        return self._run(self._calls.push_many(items))

    def receipt(self, id: str) -> Receipt:
        """What became of a notification of this client. Raises NotFound, and what ``push`` raises."""
        return self._run(self._calls.receipt(id))

    def withdraw(self, id: str) -> None:
        """Take a notification of this client back. Raises NotFound, and what ``push`` raises."""
        self._run(self._calls.withdraw(id))

    def _run(self, flow: Flow[T]) -> T:
        resume: Callable[[], Step] = partial(flow.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                reply = self._do(step)
            except GatewayError as error:
                resume = partial(flow.throw, error)
            else:
                resume = partial(flow.send, reply)

    def _do(self, step: Step) -> Answer | Silence | str | None:
        match step:
            case Request():
                try:
                    return answered(self._http.request(**sent(step)))
                except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                    return silence(error, self._calls.url)
            case Wait(seconds):
                self._sleep(seconds)
                return None
            case Bearer():
                with self._renewing:
                    return self._run(self._calls.token(step))


class AsyncGateway:
    """A backend service at its gateway, on an event loop. May be used by several tasks at once.

    As ``Gateway`` in everything else.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        token: str | None = None,
        timeout: float = TIMEOUT,
        deadline: float = DEADLINE,
        attempts: int = ATTEMPTS,
        tls: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._calls = Calls(
            url,
            client_id=client_id,
            client_secret=client_secret,
            token=token,
            timeout=timeout,
            deadline=deadline,
            attempts=attempts,
            clock=clock,
            random=random,
        )
        base, outside = self._calls.url, not is_local(self._calls.url)
        self._http = httpx2.AsyncClient(
            base_url=base, trust_env=outside, verify=tls or True, limits=KEPT, transport=transport
        )  # fmt: skip
        self._sleep, self._renewing = sleep, asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def push(
        self,
        *,
        title: str,
        user_id: str | None = None,
        user_ids: Iterable[str] | None = None,
        everyone: bool = False,
        body: str | None = None,
        data: Mapping[str, Any] | None = None,
        category: str | None = None,
        priority: Priority | None = None,
        ttl: int | None = None,
        idempotency_key: str | None = None,
    ) -> Pushed:
        """As ``Gateway.push``."""
        return await self._run(
            self._calls.push(
                idempotency_key=idempotency_key,
                **target(user_id, user_ids, everyone=everyone),
                **{"title": title, "body": body, "data": data, "category": category, "priority": priority, "ttl": ttl},
            )
        )

    async def push_many(self, items: Iterable[Push]) -> list[Result]:
        """As ``Gateway.push_many``."""
        return await self._run(self._calls.push_many(items))

    async def receipt(self, id: str) -> Receipt:
        """As ``Gateway.receipt``."""
        return await self._run(self._calls.receipt(id))

    async def withdraw(self, id: str) -> None:
        """As ``Gateway.withdraw``."""
        await self._run(self._calls.withdraw(id))

    async def _run(self, flow: Flow[T]) -> T:
        resume: Callable[[], Step] = partial(flow.send, None)
        while True:
            try:
                step = resume()
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            try:
                reply = await self._do(step)
            except GatewayError as error:
                resume = partial(flow.throw, error)
            else:
                resume = partial(flow.send, reply)

    async def _do(self, step: Step) -> Answer | Silence | str | None:
        match step:
            case Request():
                try:
                    return answered(await self._http.request(**sent(step)))
                except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                    return silence(error, self._calls.url)
            case Wait(seconds):
                await self._sleep(seconds)
                return None
            case Bearer():
                async with self._renewing:
                    return await self._run(self._calls.token(step))


def target(user_id: str | None, user_ids: Iterable[str] | None, *, everyone: bool) -> dict[str, Any]:
    """Whom a push goes to, as fields of its body. Raises TypeError for one id where many are meant: it has letters."""
    if isinstance(user_ids, str):
        raise TypeError("user_ids is a collection of ids; one id is user_id")
    many = None if user_ids is None else list(user_ids)
    return {"user_id": user_id, "user_ids": many, "everyone": everyone or None}


def sent(step: Request) -> dict[str, Any]:
    """As arguments of ``request``. A redirect is not followed: a token goes to the gateway that was named."""
    return {
        "method": step.method,
        "url": step.path,
        "headers": step.headers,
        "content": step.content,
        "timeout": step.timeout,
        "follow_redirects": False,
    }


def answered(response: httpx2.Response) -> Answer:
    return Answer(response.status_code, response.headers, response.content)


def silence(error: Exception, url: str) -> Silence:
    """Raises Refused for an address that cannot be used."""
    if isinstance(error, httpx2.InvalidURL):
        raise Refused(f"the URL cannot be used: {error}") from None
    # Type and address only: some transports put the whole request into their text.
    return Silence(f"no answer from {url} ({type(error).__name__})", unsent=isinstance(error, UNSENT))
