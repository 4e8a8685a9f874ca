"""The HTTP side of a client: signs in, keeps the access token fresh, posts. Not the server's login, no socket."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

TIMEOUT = 10.0
"""Seconds any one HTTP call may take."""
RENEW_AHEAD = 60.0
"""Seconds before its expiry a token is renewed; of a token that lives shorter than four minutes, a quarter of that."""


class Refused(Exception):
    """The gateway said no, and saying it again will not help. ``code``: its machine word; ``status``: 0 if not HTTP."""

    def __init__(self, detail: str, *, code: str = "", status: int = 0) -> None:
        super().__init__(f"{detail} ({code})" if code else detail)
        self.code, self.status = code, status


class Later(Exception):
    """No answer, or one that says to come again. ``after``: seconds the gateway asked for, 0 if it did not say."""

    def __init__(self, words: str, *, after: float = 0.0) -> None:
        super().__init__(words)
        self.after = after


def gateway_url(text: str) -> str:
    """``text`` as a base URL without its last slash. Raises ValueError in words for people."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no password, query or fragment")
    return text.rstrip("/")


def is_local(url: str) -> bool:
    """Whether the address is this machine's own: then no proxy is asked, and plain http tells nobody anything."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def open_http(url: str, *, transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """A client for one gateway. Redirects are not followed: a password is sent where the user said, nowhere else."""
    return httpx2.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=not is_local(url), transport=transport)


async def post(
    http: httpx2.AsyncClient, path: str, *, headers: Mapping[str, str] | None = None, **body: Any
) -> tuple[httpx2.Response, dict[str, Any]]:
    """POST and the JSON object of a 2xx (empty for 204). Raises Refused, or Later for silence, 429 and 5xx."""
    try:
        response = await http.post(path, headers=headers, **body)
    except httpx2.InvalidURL as error:
        raise Refused(f"the URL cannot be used: {error}") from None
    except httpx2.HTTPError as error:
        # Type and address only: some transports put the whole request into their text.
        raise Later(f"no answer from {http.base_url} ({type(error).__name__})") from None
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return response, answer
    problem = answer if isinstance(answer, dict) else {}
    code = str(problem.get("code") or problem.get("error") or "")
    detail = str(problem.get("detail") or problem.get("error_description") or f"HTTP {response.status_code}")
    errors = problem.get("errors")
    if isinstance(errors, list):
        detail += "".join(f" {e.get('pointer', '')}: {e.get('detail', '')};" for e in errors if isinstance(e, dict))
    if response.status_code == 429 or response.status_code >= 500:
        raise Later(f"{detail.rstrip(';')} ({code or response.status_code})", after=_seconds(response))
    if not problem:
        detail = f"this does not look like a gateway: HTTP {response.status_code} from {http.base_url}"
    raise Refused(detail.rstrip(";"), code=code, status=response.status_code)


def _seconds(response: httpx2.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), 3600.0) if value.isdecimal() else 0.0


async def client_token(http: httpx2.AsyncClient, *, client_id: str, secret: str) -> str:
    """An access token of a client (RFC 6749 section 4.4), the secret by Basic as section 2.3.1 wants it."""
    form = {"grant_type": "client_credentials"}
    _, answer = await post(http, "/auth/token", data=form, auth=httpx2.BasicAuth(client_id, secret))
    return str(answer["access_token"])


class Account:
    """One sign-in of a user on this device. ``password`` is asked for only when it is needed.

    ``kept``: the refresh token of an earlier run. ``changed`` hears every new refresh token, before it is used:
    whoever stores it must have stored it when the old one dies.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        username: str,
        password: Callable[[], str],
        device: str,
        kept: str | None = None,
        changed: Callable[[str], None] = lambda token: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http, self._username, self._password, self._device = http, username, password, device
        self._refresh_token, self._changed, self._clock = kept, changed, clock
        self._access: str | None = None
        self._mine = False
        self.renew_at = float("-inf")
        """On ``clock``: when ``renew`` is due."""

    async def token(self) -> str:
        """A token that is good for a while. Raises Refused, Later."""
        if self._access is None or self._clock() >= self.renew_at:
            return await self.renew()
        return self._access

    async def renew(self) -> str:
        """A fresh access token: by the refresh token, or, at the beginning only, by the password.

        A session that was ours and is refused is over; to sign in again by itself would undo whoever ended it.
        """
        if self._refresh_token is not None:
            try:
                return await self._take("/auth/refresh", {"refresh_token": self._refresh_token})
            except Refused as error:
                if self._mine or error.status not in (400, 401):
                    raise
                self._refresh_token = None
        body = {"username": self._username, "password": self._password(), "device": self._device}
        return await self._take("/auth/login", body)

    async def _take(self, path: str, body: Mapping[str, str]) -> str:
        asked = self._clock()
        _, answer = await post(self._http, path, json=body)
        lifetime = float(answer.get("expires_in", 0))
        self.renew_at = asked + lifetime - min(RENEW_AHEAD, lifetime / 4)
        self._access, self._mine = str(answer["access_token"]), True
        if answer.get("refresh_token"):
            self._refresh_token = str(answer["refresh_token"])
            self._changed(self._refresh_token)
        return self._access

    async def leave(self) -> None:
        """Sign out. Raises Refused, Later; both may be ignored: the session ends by itself when it idles."""
        if self._access is not None:
            await post(self._http, "/auth/logout", headers={"Authorization": f"Bearer {self._access}"})
            self._access = None
