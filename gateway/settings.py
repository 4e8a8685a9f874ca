"""Environment → frozen Settings. Read in ``app.py`` and ``cli.py`` only; everything else is handed values.

Every setting is an environment variable ``GATEWAY_<NAME>``; ``.env.example`` lists them all (a test compares).
An unknown ``GATEWAY_…`` name or a bad value stops the start with a message that names it.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from gateway.auth.issuers import TrustedIssuer, parse_trusted_issuers
from gateway.hosts import Hosts

PREFIX = "GATEWAY_"
_LONGEST = 36_500 * 86_400
"""Seconds, a hundred years: what is added to a date must still be one."""
_ORIGIN = re.compile(r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")
"""As browsers write it (RFC 6454 section 6.2): in lower case, no path, no port that goes without saying."""
LONGEST_ACCESS_TTL = 86_400


class SettingsError(Exception):
    """What the environment says cannot be used; each line names the setting."""


class Settings(BaseModel):
    """All settings, frozen. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    # where it listens
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535)
    node: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of this node in hello and logs; default: host name and process id.",
    )
    docs: Literal["auto", "on", "off"] = Field(
        "auto", description="/docs, /demo and /openapi.json; auto: only when listening on loopback."
    )
    console: Literal["auto", "on", "off"] = Field(
        "auto", description="/console, for administrators; auto: only when listening on loopback."
    )

    workers: int = Field(1, ge=1, le=256, description="Processes that serve one port. More than one needs PostgreSQL.")

    # what it keeps
    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///./var/gateway.db")
    database_connections: int = Field(
        10, ge=3, le=1000, description="PostgreSQL: connections a process holds at most, one more for revocations."
    )
    redis_url: SecretStr | None = None
    durability: Literal["full", "relaxed"] = Field(
        "full", description="relaxed: a power cut may lose the last answers (the epoch then changes)."
    )
    inbox_max: int = Field(10_000, ge=1, le=10_000_000)

    # tokens
    issuer: str = Field("notification-gateway", min_length=1, max_length=255)
    audience: str = Field("notification-gateway", min_length=1, max_length=255)
    access_token_ttl: int = Field(900, ge=1, le=LONGEST_ACCESS_TTL)
    refresh_token_idle: int = Field(
        30 * 86_400, ge=1, le=_LONGEST, description="A session not refreshed for this long ends."
    )
    session_ttl: int = Field(
        365 * 86_400, ge=1, le=_LONGEST, description="A session ends after this long, however often refreshed."
    )
    refresh_grace: int = Field(
        30, ge=0, le=300, description="For this long the direct predecessor of a refresh token gets the same successor."
    )
    token_leeway: int = Field(5, ge=0, le=30, description="Clock difference forgiven when a token is verified.")
    signing_keys: SecretStr | None = Field(
        None,
        description='JSON list of {"kid","alg","key"}; the last signs. Unset: keys in the database (gateway keys).',
    )
    trusted_issuers: str | None = Field(
        None, description='JSON list of {"issuer", "jwks_url", "audience", …} whose tokens become sessions here.'
    )
    bootstrap_admin_password: SecretStr | None = None

    # limits
    connections_per_user: int = Field(20, ge=1)
    connections_per_address: int = Field(0, ge=0, description="0: unlimited.")
    connections_max: int = Field(50_000, ge=1)
    push_rate: int = Field(0, ge=0, description="Notifications per second per client; 0: unlimited.")
    upgrade_rate: float = Field(
        0, ge=0, le=1_000_000, description="Upgrades per second and address, a burst of ten seconds; 0: unlimited."
    )
    upgrades_at_once: int = Field(64, ge=1, description="Handshakes under way in a process; others wait their turn.")
    upgrades_waiting: int = Field(
        10_000, ge=0, description="Handshakes that wait for their turn; beyond it they are refused with 1013."
    )
    frame_rate: float = Field(10, gt=0, le=1_000_000)
    frame_burst: int = Field(100, ge=1)
    password_hashers: int | None = Field(None, ge=1, le=64, description="Argon2 computations at once (19 MiB each).")
    login_failures: int = Field(
        10, ge=0, le=1000, description="Failed sign-ins forgiven per account, and per address, in a window; 0: any."
    )
    login_window: int = Field(900, ge=60, le=86_400, description="Seconds until all failed sign-ins are forgiven.")

    # sockets
    ws_reject: Literal["close", "http"] = "close"
    allowed_origins: tuple[str, ...] = Field(
        (), description="Comma separated; same origin is always allowed; * allows all."
    )
    require_tls: bool = Field(
        False, description="Requests and upgrades that did not come over TLS, by the word of a proxy, are refused."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Hosts a request may name, comma separated; *.name for all below it; unset: any."
    )
    heartbeat: int = Field(25, ge=2, le=300)
    presence_linger: float = Field(
        5, ge=0, le=300, description="Seconds a user counts as online after the last connection."
    )
    drain_grace: float = Field(10, ge=0, le=600, description="Seconds a shutdown may take to move its clients away.")
    forwarded_allow_ips: str = Field("", description="Proxies whose X-Forwarded-For is believed, comma separated.")

    # operations
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "text", "json"] = "auto"
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Own port for /metrics on 127.0.0.1; unset: admin scope on the main port."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("allowed_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(origin != "*" and _ORIGIN.fullmatch(origin) is None for origin in value):
            raise ValueError("must be * or origins like https://app.example, in lower case, without a path")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Hosts(value)
        return value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for part in value.split(",") if value not in ("", "*") else ():
            try:
                ipaddress.ip_network(part.strip())
            except ValueError:  # uvicorn would take it for a name, and believe nobody
                raise ValueError("must be addresses or networks like 10.0.0.0/8, comma separated") from None
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url.startswith(("postgres://", "postgresql://")):
            raise ValueError("must begin with postgresql+asyncpg:// (the driver is part of it)")
        if not url.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")):
            raise ValueError("must begin with sqlite+aiosqlite:/// or postgresql+asyncpg://")
        if url.startswith("sqlite") and "?" in url:
            raise ValueError("takes no options: what follows the ? would not be heeded")
        return value

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// (TLS) or unix://")
        return value

    @field_validator("trusted_issuers")
    @classmethod
    def _issuers(cls, value: str | None) -> str | None:
        parse_trusted_issuers(value or "[]")
        return value

    @model_validator(mode="after")
    def _not_its_own_issuer(self) -> Settings:
        if self.issuer in self.issuers_trusted:
            raise ValueError(
                "GATEWAY_TRUSTED_ISSUERS: holds GATEWAY_ISSUER: a token of this gateway is no way to another session"
            )
        return self

    @model_validator(mode="after")
    def _one_process_on_sqlite(self) -> Settings:
        if self.workers > 1 and self.on_sqlite:
            raise ValueError(
                "GATEWAY_WORKERS: several processes cannot serve one SQLite database; "
                "set GATEWAY_DATABASE_URL to postgresql+asyncpg://…, and GATEWAY_REDIS_URL"
            )
        return self

    @property
    def issuers_trusted(self) -> Mapping[str, TrustedIssuer]:
        """By name. Parsed at every use: that is once, at the start."""
        return parse_trusted_issuers(self.trusted_issuers or "[]")

    @property
    def on_sqlite(self) -> bool:
        return self.database_url.get_secret_value().startswith("sqlite")


def setting_names() -> list[str]:
    """Every environment variable the gateway knows, in the order of the class."""
    return [PREFIX + name.upper() for name in Settings.model_fields]


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The Settings of ``environment`` (default: the process's). Raises SettingsError naming every bad setting.

    Empty values count as unset, so ``GATEWAY_REDIS_URL=`` in an env file is harmless.
    """
    source = os.environ if environment is None else environment
    given = {name: value for name, value in source.items() if name.startswith(PREFIX)}
    known = {name: name[len(PREFIX) :].lower() for name in setting_names()}
    complaints = []
    for name in sorted(given.keys() - known.keys()):
        near = difflib.get_close_matches(name, known, n=1)
        complaints.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        settings = Settings.model_validate({known[n]: v for n, v in given.items() if n in known and v != ""})
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            text = problem["msg"].removeprefix("Value error, ")  # what is about several settings names them itself
            complaints.append(f"{PREFIX}{str(problem['loc'][0]).upper()}: {text}" if problem["loc"] else text)
        raise SettingsError("\n".join(complaints)) from None
    if complaints:
        raise SettingsError("\n".join(complaints))
    return settings
