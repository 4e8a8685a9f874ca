"""What the bodies of ``/admin`` hold, in and out, as pydantic models. Rules of reading: ``schemas.py``. No I/O."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.api.schemas import Answer, Body, Instant, Label, Password, Reference, UserId, Username
from gateway.model import (
    AuditRecord,
    Client,
    ConnectionInfo,
    NodePresence,
    PresenceInfo,
    PresenceSummary,
    Revocation,
    Role,
    User,
    rfc3339,
)


class NewUser(Body):
    username: Username
    password: Password
    id: UserId | None = Field(None, description="Generated if absent.")
    role: Role | None = Field(None, description="`user` if absent.")


class UserChange(Body):
    disabled: bool | None = None
    role: Role | None = None


class PasswordReset(Body):
    password: Password


class UserOut(Answer):
    id: str
    username: str
    role: Role
    disabled: bool
    created_at: str

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(
            id=user.id,
            username=user.username,
            role=user.role,
            disabled=user.disabled,
            created_at=rfc3339(user.created_at),
        )


class UserList(Answer):
    items: list[UserOut]
    next: str | None


class NewClient(Body):
    name: Label
    scopes: list[Literal["notifications:write"]] | None = Field(None, min_length=1, max_length=1)


class ClientOut(Answer):
    client_id: str
    name: str
    scopes: list[str]
    created_at: str
    rotated_at: str | None

    @classmethod
    def of(cls, client: Client) -> ClientOut:
        return cls(**_client(client))


class ClientWithSecret(ClientOut):
    client_secret: str = Field(description="Shown this once.")

    @classmethod
    def made(cls, client: Client, *, secret: str) -> ClientWithSecret:
        return cls(**_client(client), client_secret=secret)


def _client(client: Client) -> dict[str, Any]:
    return {
        "client_id": client.client_id,
        "name": client.name,
        "scopes": sorted(client.scopes),
        "created_at": rfc3339(client.created_at),
        "rotated_at": rfc3339(client.rotated_at) if client.rotated_at is not None else None,
    }


class ClientList(Answer):
    items: list[ClientOut]
    next: str | None


class NewRevocation(Body):
    """Exactly one of ``session``, ``user_id``, ``jti`` and ``client_id``."""

    session: Reference | None = None
    user_id: Reference | None = None
    issued_before: Instant | None = Field(None, description="With `user_id`: sessions signed in at or before then.")
    jti: Reference | None = None
    client_id: Reference | None = None
    reason: Annotated[str, Field(max_length=500)] | None = None


class Revoked(Answer):
    id: str
    connections_closed: int = Field(description="On the node that answers; the others follow within the second.")


class RevocationOut(Answer):
    id: str
    session: str | None = None
    user_id: str | None = None
    issued_before: str | None = None
    jti: str | None = None
    client_id: str | None = None
    reason: str | None = None
    actor: str
    created_at: str
    until: str = Field(description="When nothing it is aimed at can still be valid.")

    @classmethod
    def of(cls, revocation: Revocation) -> RevocationOut:
        target = revocation.target
        return cls(
            id=revocation.id,
            session=target.session,
            user_id=target.user_id,
            issued_before=rfc3339(target.issued_before) if target.issued_before is not None else None,
            jti=target.token_id,
            client_id=target.client_id,
            reason=revocation.reason,
            actor=revocation.actor,
            created_at=rfc3339(revocation.created_at),
            until=rfc3339(revocation.until),
        )


class RevocationList(Answer):
    items: list[RevocationOut]
    next: str | None


class ConnectionOut(Answer):
    id: str
    user_id: str
    session: str | None
    node: str
    transport: str
    address: str | None
    opened_at: str
    token_expires_at: str
    behind: bool

    @classmethod
    def of(cls, connection: ConnectionInfo) -> ConnectionOut:
        return cls(
            id=connection.id,
            user_id=connection.user_id,
            session=connection.session,
            node=connection.node,
            transport=connection.transport,
            address=connection.address,
            opened_at=rfc3339(connection.opened_at),
            token_expires_at=rfc3339(connection.token_expires_at),
            behind=connection.behind,
        )


class ConnectionList(Answer):
    items: list[ConnectionOut]
    next: str | None
    missing: list[str] = Field(description="Nodes that live and did not answer: what they have open is not in here.")


class PresenceOut(Answer):
    user_id: str
    online: bool | None = Field(description="null: it cannot be known now.")
    since: str | None = Field(description="Since when, however many devices came and went.")
    devices: int = Field(description="Sessions with an open connection.")
    connections: int
    nodes: list[str]

    @classmethod
    def of(cls, one: PresenceInfo) -> PresenceOut:
        return cls(
            user_id=one.user_id,
            online=one.online,
            since=rfc3339(one.since) if one.since is not None else None,
            devices=one.devices,
            connections=one.connections,
            nodes=list(one.nodes),
        )


class PresenceList(Answer):
    items: list[PresenceOut]


class NodeOut(Answer):
    node: str
    users: int = Field(description="With a connection on this node.")
    connections: int
    since: str = Field(description="When the node began.")

    @classmethod
    def of(cls, node: NodePresence) -> NodeOut:
        return cls(node=node.node, users=node.users, connections=node.connections, since=rfc3339(node.since))


class PresenceTotals(Answer):
    users: int = Field(description="Over all nodes; a user with devices on two of them counts on each.")
    connections: int
    nodes: list[NodeOut]
    complete: bool = Field(description="Whether the other nodes could be asked; if not, only this one is in here.")

    @classmethod
    def of(cls, summary: PresenceSummary) -> PresenceTotals:
        return cls(
            users=sum(node.users for node in summary.nodes),
            connections=sum(node.connections for node in summary.nodes),
            nodes=[NodeOut.of(node) for node in summary.nodes],
            complete=summary.complete,
        )


class AuditOut(Answer):
    number: int
    at: str
    actor: str
    action: str
    target: str | None
    detail: dict[str, Any]
    address: str | None
    request_id: str | None

    @classmethod
    def of(cls, record: AuditRecord) -> AuditOut:
        return cls(
            number=record.number,
            at=rfc3339(record.at),
            actor=record.actor,
            action=record.action,
            target=record.target,
            detail=dict(record.detail),
            address=record.address,
            request_id=record.request_id,
        )


class AuditList(Answer):
    items: list[AuditOut]
    next: str | None
