"""What an empty database is given: a signing key and an admin. Everything later is somebody's own doing."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gateway.auth.keys import generate_signing_key, parse_signing_keys
from gateway.auth.tokens import Keyring
from gateway.errors import Conflict, Invalid
from gateway.model import Actor, SigningKey, millis, new_id
from gateway.services import Services
from gateway.settings import Settings, SettingsError
from gateway.store.engine import Store

SYSTEM = Actor("gateway")
FirstAdmin = Callable[[str, str], None]
"""Is told the name and the password of the admin that was made; the password is empty if a setting chose it."""


async def keyring_of(settings: Settings, store: Store, *, now: float) -> Keyring:
    """The keys to sign and verify with. Raises SettingsError if a setting makes tokens that cannot be used."""
    keys = await _signing_keys(settings, store, now)
    try:
        return Keyring(
            keys, issuer=settings.issuer, audience=settings.audience, max_ttl=settings.access_token_ttl,
            leeway=settings.token_leeway,
        )  # fmt: skip
    except ValueError as error:
        raise SettingsError(f"GATEWAY_SIGNING_KEYS, GATEWAY_ISSUER or GATEWAY_AUDIENCE: {error}") from None


async def _signing_keys(settings: Settings, store: Store, now: float) -> list[SigningKey]:
    """Those of the setting, else those of the database, where the first start puts one."""
    if settings.signing_keys is not None:
        try:
            return parse_signing_keys(settings.signing_keys.get_secret_value())
        except ValueError as error:
            raise SettingsError(f"GATEWAY_SIGNING_KEYS: {error}") from None
    keys = await store.keys.signing()
    if not keys:
        await store.keys.add_signing(generate_signing_key(now), only_if_none=True)
        keys = await store.keys.signing()
    return list(keys)


async def first_admin(settings: Settings, services: Services, told: FirstAdmin | None) -> None:
    """An empty database gets the user ``admin`` (contract 9). Raises SettingsError for an unfit password.

    Of several nodes that start on it at once one makes it, and only that one is told.
    """
    anybody, _ = await services.users.list(query=None, limit=1, cursor=None)
    if anybody:
        return
    chosen = settings.bootstrap_admin_password
    password = chosen.get_secret_value() if chosen is not None else secrets.token_urlsafe(15)
    try:
        password_hash = await services.login.hash_new(password, username="admin")
    except Invalid as error:
        raise SettingsError(f"GATEWAY_BOOTSTRAP_ADMIN_PASSWORD: {error.detail}") from None
    try:
        await services.users.create(
            id=new_id(services.clock()), username="admin", role="admin", password_hash=password_hash, by=SYSTEM,
            now=millis(services.clock()),
        )  # fmt: skip
    except Conflict:
        return
    if told is not None:
        told("admin", "" if chosen is not None else password)
