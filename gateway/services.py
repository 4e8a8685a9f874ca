"""Everything open, in one frozen record: what ``open_gateway`` yields and edges are handed. Makes nothing itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.auth.tokens import Keyring
from gateway.authn import Authn
from gateway.drain import Drain
from gateway.epoch import Epoch
from gateway.exchange import Exchange
from gateway.hub import Hub
from gateway.login import Login
from gateway.metrics import Metrics
from gateway.origins import Origins
from gateway.ports import Audit, Bus, Clients, Clock, Identities, Inbox, Limiter, Presence, Revocations, Sessions, Users
from gateway.presented import PresentedTokens
from gateway.publish import Publisher
from gateway.revoke import Revoker
from gateway.tickets import Tickets
from gateway.ties import Ties


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons``: why this node cannot serve now; none, and it can. ``degraded``: what it does without meanwhile."""

    reasons: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Services:
    """``exposition``: the metrics as text, those of every worker if there are several. ``session_idle``: milliseconds
    after which a session that was not refreshed is over, its last token too."""

    node: str
    epoch: Epoch
    clock: Clock
    users: Users
    sessions: Sessions
    session_idle: int
    clients: Clients
    inbox: Inbox
    audit: Audit
    revocation_log: Revocations
    keyring: Keyring
    login: Login
    exchange: Exchange
    identities: Identities
    authn: Authn
    tickets: Tickets
    origins: Origins
    presented: PresentedTokens
    publisher: Publisher
    revoker: Revoker
    hub: Hub
    presence: Presence
    bus: Bus
    limiter: Limiter
    metrics: Metrics
    readiness: Callable[[], Awaitable[Readiness]]
    exposition: Callable[[], Awaitable[bytes]]
    ties: Ties
    drain: Drain
