"""Everything open, in one frozen record: what ``open_gateway`` yields and edges are handed. Makes nothing itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.auth.tokens import Keyring
from gateway.authn import Authn
from gateway.drain import Drain
from gateway.hub import Hub
from gateway.login import Login
from gateway.metrics import Metrics
from gateway.ports import Audit, Clients, Clock, Inbox, Presence, Revocations, Sessions, Users
from gateway.publish import Publisher
from gateway.revoke import Revoker
from gateway.ties import Ties


@dataclass(frozen=True, slots=True)
class Services:
    """``readiness`` answers the reasons why this node cannot serve now (none: it can), and whether it is degraded."""

    node: str
    epoch: str
    clock: Clock
    users: Users
    sessions: Sessions
    clients: Clients
    inbox: Inbox
    audit: Audit
    revocation_log: Revocations
    keyring: Keyring
    login: Login
    authn: Authn
    publisher: Publisher
    revoker: Revoker
    hub: Hub
    presence: Presence
    metrics: Metrics
    readiness: Callable[[], Awaitable[Sequence[str]]]
    ties: Ties
    drain: Drain
