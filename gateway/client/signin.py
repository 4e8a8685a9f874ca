"""The HTTP side of a receiving client: signs in, keeps the access token fresh. Not the server's login, no socket."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from gateway.client.addresses import is_local
from gateway.client.answers import read, understood
from gateway.client.calls import RENEW_AHEAD
from gateway.client.errors import Refused, Unavailable
from gateway.client.sending import TIMEOUT, answered, silence

SHORTEST = 1.0
"""Seconds a token is taken to live, whatever its answer says: or it would be renewed all the time."""


def open_http(
    url: str, *, tls: ssl.SSLContext | None = None, transport: httpx2.AsyncBaseTransport | None = None
) -> httpx2.AsyncClient:
    """A client for one gateway. Redirects are not followed: a password is sent where the user said, nowhere else."""
    return httpx2.AsyncClient(
        base_url=url, timeout=TIMEOUT, trust_env=not is_local(url), verify=tls or True, transport=transport
    )


async def post(
    http: httpx2.AsyncClient, path: str, *, headers: Mapping[str, str] | None = None, **body: Any
) -> tuple[httpx2.Response, dict[str, Any]]:
    """POST once, and the JSON object of a 2xx (empty for 204). Raises Refused, or Unavailable for silence, 429 and
    5xx."""
    url = str(http.base_url)
    try:
        response = await http.post(path, headers=headers, **body)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        nothing = silence(error, url)
        raise Unavailable(nothing.words, unknown=not nothing.unsent) from None
    return response, read(answered(response), url=url)


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
        """A token that is good for a while. Raises Refused, Unavailable."""
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
        response, answer = await post(self._http, path, json=body)
        token, lifetime = understood(
            lambda: (str(answer["access_token"]), max(SHORTEST, float(answer["expires_in"]))),
            answered(response),
            url=str(self._http.base_url),
        )
        self.renew_at = asked + lifetime - min(RENEW_AHEAD, lifetime / 4)
        self._access, self._mine = token, True
        if answer.get("refresh_token"):
            self._refresh_token = str(answer["refresh_token"])
            self._changed(self._refresh_token)
        return self._access

    async def leave(self) -> None:
        """Sign out. Raises Refused, Unavailable; both may be ignored: the session ends by itself when it idles."""
        if self._access is not None:
            await post(self._http, "/auth/logout", headers={"Authorization": f"Bearer {self._access}"})
            self._access = None
