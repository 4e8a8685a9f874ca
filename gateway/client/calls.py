"""The calls of a backend service, without I/O: generators that yield what has to be done and are sent what came of it.

``sending.py`` runs them, once with and once without an event loop. Whatever decides anything is here.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from gateway import __version__
from gateway.client.addresses import gateway_url
from gateway.client.answers import Answer, pushed, read, receipt, stranger, understood
from gateway.client.batches import ROOM, Item, batches, body_of, encoded, new_key, results
from gateway.client.errors import GatewayError, Unauthorized, Unavailable
from gateway.client.retrying import FIRST, MOST, Patience
from gateway.client.rules import Backoff
from gateway.client.values import Problem, Push, Pushed, Receipt, Result

RENEW_AHEAD = 60.0
"""Seconds before its expiry a token is renewed; of a token that lives shorter than four minutes, a quarter of that."""
RENEW_AGAIN = 5.0
"""Seconds until the next try, if a renewal fails while the old token is still good."""


@dataclass(frozen=True, slots=True)
class Request:
    """To be sent; the reply is an ``Answer`` or ``Silence``. ``timeout``: seconds."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Wait:
    """To be waited for; the reply is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Bearer:
    """Wanted: what ``Calls.token`` returns, run by one caller at a time. ``refused``: a token that is no good."""

    refused: str | None
    until: float


Step = Request | Wait | Bearer
T = TypeVar("T")
Flow = Generator[Step, Any, T]


class Calls:
    """The calls of one client at one gateway, and the token they share."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None,
        client_secret: str | None,
        token: str | None,
        timeout: float,
        deadline: float,
        attempts: int,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.url = gateway_url(url)
        if (token is None) == (client_id is None or client_secret is None):
            raise ValueError("who sends? client_id with its client_secret, or a token")
        self._renews = token is None
        self._basic = "Basic " + base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._timeout, self._deadline, self._attempts = timeout, deadline, attempts
        self._clock, self._random = clock, random
        self._access = token
        self._renew_at = self._expires_at = float("-inf" if self._renews else "inf")

    # -- what is called ------------------------------------------------------------------------------------------

    def push(self, *, idempotency_key: str | None, **fields: Any) -> Flow[Pushed]:
        """``POST /notifications``. Fields that are None are left out."""
        key = idempotency_key or new_key(fields)
        content = encoded(fields)
        try:
            repeatable = fields.get("ttl") != 0
            answer, body = yield from self._call("POST", "/notifications", self._patience(), content, key, repeatable)
            return understood(partial(pushed, answer, body, key), answer, url=self.url)
        except GatewayError as error:
            error.idempotency_key = key
            raise

    def push_many(self, items: Iterable[Push]) -> Flow[list[Result]]:
        """As many batches as it takes, one after the other. Every item is rendered before the first is sent."""
        given = [Item.of(place, push) for place, push in enumerate(items)]
        told: dict[int, Result] = {item.place: item.too_large() for item in given if len(item.json) > ROOM}
        cut = batches([item for item in given if item.place not in told])
        try:
            for batch in cut:
                yield from self._batch(batch, told)
        except GatewayError as error:
            failed = {item.place for item in batch}
            for item in given:
                if item.place not in told:
                    sent = item.place in failed
                    problem = error.problem if sent else Problem(status=0, code="", detail="not sent")
                    told[item.place] = item.failed(problem, unknown=sent and error.unknown)
            error.results = tuple(told[item.place] for item in given)
            raise
        return [told[item.place] for item in given]

    def receipt(self, id: str) -> Flow[Receipt]:
        """``GET /notifications/{id}``."""
        answer, body = yield from self._call("GET", f"/notifications/{quote(id, safe='')}", self._patience())
        return understood(partial(receipt, body), answer, url=self.url)

    def withdraw(self, id: str) -> Flow[None]:
        """``DELETE /notifications/{id}``."""
        yield from self._call("DELETE", f"/notifications/{quote(id, safe='')}", self._patience())

    # -- how -----------------------------------------------------------------------------------------------------

    def _patience(self) -> Patience:
        backoff = Backoff(random=self._random, first=FIRST, most=MOST)
        return Patience(self._clock() + self._deadline, self._attempts, self._clock, backoff)

    def _batch(self, batch: Sequence[Item], told: dict[int, Result]) -> Flow[None]:
        """One batch; the items in it that are told to come again are sent again by themselves."""
        patience, left = self._patience(), list(batch)
        while True:
            content = body_of(left)
            repeatable = all(item.key is not None for item in left)
            answer, body = yield from self._call(
                "POST", "/notifications/batch", patience, content, repeatable=repeatable
            )  # fmt: skip
            each = understood(partial(results, left, answer, body), answer, url=self.url)
            told |= {item.place: one for item, one in zip(left, each, strict=True)}
            left = [item for item, one in zip(left, each, strict=True) if item.comes_again(one)]
            if not left or (wait := patience.wait()) is None:
                return
            yield Wait(wait)

    def _call(
        self,
        method: str,
        path: str,
        patience: Patience,
        content: bytes | None = None,
        key: str | None = None,
        repeatable: bool = True,
    ) -> Flow[tuple[Answer, dict[str, Any]]]:
        """One request until it is answered, refused, or patience ends. Raises GatewayError."""
        headers = {"User-Agent": f"notification-gateway-client/{__version__}"}
        headers |= {} if content is None else {"Content-Type": "application/json"}
        headers |= {} if key is None else {"Idempotency-Key": key}
        refused: str | None = None
        unknown = False
        while True:
            token: str | None = None
            try:
                token = self._held(refused) or (yield Bearer(refused, patience.until))
                bearing = {**headers, "Authorization": f"Bearer {token}"}
                answer = yield Request(method, path, bearing, content, self._timeout_of(patience))
                return answer, read(answer, url=self.url)
            except GatewayError as error:
                if isinstance(error, Unauthorized) and self._renews and refused is None and token is not None:
                    refused = token
                    continue
                wait = patience.wait_for(error, repeatable=repeatable) if isinstance(error, Unavailable) else None
                # An earlier attempt may have been taken, whatever became of this one.
                unknown = error.unknown = error.unknown or unknown
                if wait is None:
                    raise
            yield Wait(wait)

    def _timeout_of(self, patience: Patience) -> float:
        return max(0.1, min(self._timeout, patience.left))

    # -- the token -----------------------------------------------------------------------------------------------

    def _held(self, refused: str | None) -> str | None:
        return self._access if self._access != refused and self._clock() < self._renew_at else None

    def token(self, wanted: Bearer) -> Flow[str]:
        """An access token by the client's credentials (RFC 6749 section 4.4), the one held if it is good.

        Raises Unauthorized if the secret is wrong, Unavailable.
        """
        patience = self._patience()
        patience.until = min(patience.until, wanted.until)
        while True:
            if (held := self._held(wanted.refused)) is not None:
                return held
            asked = self._clock()
            headers = {"Authorization": self._basic, "Content-Type": "application/x-www-form-urlencoded"}
            form = b"grant_type=client_credentials"
            reply = yield Request("POST", "/auth/token", headers, form, self._timeout_of(patience))
            try:
                answer = read(reply, url=self.url)
            except Unavailable as error:
                if self._access is not None and self._access != wanted.refused and self._clock() < self._expires_at:
                    self._renew_at = min(self._clock() + RENEW_AGAIN, self._expires_at)
                    return self._access
                error.unknown = False  # whatever is to be done with the token, it was not done
                wait = patience.wait_for(error, repeatable=True)
                if wait is None:
                    raise
                yield Wait(wait)
                continue
            except GatewayError:
                self._access = None
                raise
            lifetime = answer.get("expires_in")
            if not isinstance(lifetime, int) or not isinstance(answer.get("access_token"), str):
                raise stranger(reply.status, url=self.url)
            self._access = answer["access_token"]
            self._expires_at = asked + lifetime
            self._renew_at = asked + lifetime - min(RENEW_AHEAD, lifetime / 4)
            return self._access
