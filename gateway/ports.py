"""Every seam of the gateway on one screen: what the core asks of the outside. The docstrings are promises.

Adapters live in ``store/``, ``bus/``, ``presence/`` and ``sockets/``; each runs the tests of ``tests/contracts/``.
All store methods raise ``StoreUnavailable`` when the database cannot answer; then what was asked is *unknown*.
``now`` is always milliseconds since the epoch: adapters read no clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.closing import Close
from gateway.model import (
    Actor,
    Append,
    Appended,
    AuditRecord,
    Ban,
    Client,
    ConnectionInfo,
    Entry,
    Listing,
    MarkedRead,
    Opening,
    Page,
    Policy,
    PresenceInfo,
    PresenceSummary,
    Receipt,
    Revocation,
    Role,
    Roster,
    Session,
    Signal,
    SignIn,
    SigningKey,
    State,
    Target,
    User,
    Withdrawn,
)


class Clock(Protocol):
    def __call__(self) -> float:
        """Wall time in seconds since the epoch."""


class Inbox(Protocol):
    """The durable logs. A method that writes returns only after its commit has reached the disk."""

    async def append(self, request: Append) -> Appended:
        """Store ``request`` in the group that is gathering.

        Each user's seq grows by exactly one per draft, in the order of the drafts and of the calls; commit order is
        seq order. A draft whose user does not exist gets the outcome ``seq=None`` and stores nothing.
        If the sender used the key before (and it has not expired) for the same fingerprint, the first answer comes
        back, ``replayed``; for another fingerprint: ``Invalid`` ``idempotency_mismatch``. A key is remembered only if
        something was stored, or the drafts are ``listed``. A caller that is cancelled does not take its request back.
        """

    def append_all(self, requests: Sequence[Append]) -> Awaitable[Sequence[Appended | BaseException]]:
        """``append`` each of them, in order: what came of each, or what it raised. They need not commit together.

        The work is under way when this returns, whether it is awaited or not.
        """

    async def opening(self, user_id: str, *, session: str, now: int) -> Opening:
        """Cursor of the session and state of the inbox in one snapshot. ``ended_why`` if there is no such session."""

    async def page(self, user_id: str, *, after: int, now: int) -> Page:
        """What lies after ``after``, oldest first, bounded in rows and bytes; state and rows from one snapshot.

        Expired entries are not in it. Callers that wait together are read together.
        """

    async def states(self, user_ids: Sequence[str]) -> Mapping[str, State]:
        """The counters of many inboxes; unknown users are left out."""

    async def listing(
        self,
        user_id: str,
        *,
        after: int | None,
        before: int | None,
        limit: int,
        unread: bool,
        category: str | None,
        now: int,
    ) -> Listing:
        """Newest first without ``after``, oldest first with it. Expired entries are not in it."""  # fmt: skip

    async def entry(self, user_id: str, id: str, *, now: int) -> Entry:
        """One entry of this user's inbox. Raises NotFound("notification")."""

    async def receipt(self, id: str, *, now: int) -> Receipt:
        """What became of a notification, also after it left the inbox. Raises NotFound("notification")."""

    async def ack(self, user_id: str, *, session: str, seq: int, now: int) -> None:
        """Move the session's cursor up to ``seq``, never back. Callers that wait together are written together.

        Raises Conflict("ack_out_of_range") beyond the head, and Conflict("epoch_mismatch") if the log has got another
        name since (nothing moves, either time); a session that ended is ignored.
        Entries no device had acknowledged yet get their ``acknowledged_at``.
        """

    async def mark_read(
        self, user_id: str, *, ids: Sequence[str] = (), up_to: int | None = None, now: int
    ) -> MarkedRead:
        """Mark as read. ``rev`` grows by one if anything changed. ids that are unknown, gone or read are passed over.

        Raises Invalid if ``up_to`` is beyond the head, Conflict("epoch_mismatch") as ``ack`` does.
        """

    async def withdraw(self, id: str, *, sender: str | None, now: int) -> Withdrawn | None:
        """Take a notification back; ``sender`` None means any. None if it had left the inbox already.

        Raises NotFound("notification") if there is none such, or not of this sender.
        """

    async def hide(self, user_id: str, id: str, *, now: int) -> Withdrawn:
        """Take it out of this user's own inbox. Its receipt then says what it said (``withdrawn`` is the sender's
        word: hidden counts as read if it was read, else as acknowledged). Raises NotFound("notification")."""

    async def expire(self, *, now: int, limit: int) -> int:
        """Move up to ``limit`` expired entries out of the inboxes, to receipts. How many."""

    async def trim(self, user_ids: Iterable[str], *, keep: int, now: int) -> int:
        """Move the oldest entries beyond ``keep`` of these users out of the inboxes. How many."""

    async def overfull(self, *, keep: int) -> Sequence[str]:
        """Users with more than ``keep`` entries: asked once at start."""

    async def purge(self, *, now: int, limit: int) -> int:
        """Delete up to ``limit`` of what nobody can ask for any more: old receipts and idempotency keys. How many."""


class Users(Protocol):
    async def create(self, *, id: str, username: str, role: Role, password_hash: str, by: Actor, now: int) -> User:
        """Raises Conflict("username_taken") or Conflict("id_taken") (also if a deleted user had the id)."""

    async def get(self, id: str) -> User:
        """Raises NotFound("user")."""

    async def credentials(self, username: str) -> tuple[User, str] | None:
        """The user and the stored hash, for sign-in. None if there is none."""

    async def password_hash(self, id: str) -> str:
        """Raises NotFound("user")."""

    async def rehash(self, id: str, *, old: str, new: str) -> None:
        """Replace the hash if it is still ``old``: the upgrade in place of a weaker one."""

    async def list(self, *, query: str | None, limit: int, cursor: str | None) -> tuple[Sequence[User], str | None]:
        """By id; ``query`` is found in id or username, ignoring case. And where to go on, or None."""

    async def update(
        self, id: str, *, role: Role | None, disabled: bool | None, by: Actor, now: int, until: int
    ) -> tuple[User, tuple[Ban, ...]]:
        """Disabling ends the sessions (``user_disabled``), in the same transaction. So does a changed role
        (``token_revoked``): no token keeps a scope its user has lost. Raises NotFound("user"), and
        Conflict("last_admin") if no admin who is not disabled would be left."""

    async def set_password(
        self,
        id: str,
        *,
        password_hash: str,
        keep_session: str | None,
        by: Actor,
        now: int,
        until: int,
        replaces: str | None = None,
    ) -> tuple[Ban, ...]:
        """Every session but ``keep_session`` ends in the same transaction. Raises NotFound("user"), and BadCredentials
        if the stored hash is no longer ``replaces`` (None: whatever it is)."""

    async def delete(self, id: str, *, by: Actor, now: int, until: int) -> tuple[Ban, ...]:
        """Sessions and inbox go; the id is never given again. Raises NotFound("user"), Conflict("last_admin")."""


class Sessions(Protocol):
    async def start(self, sign_in: SignIn) -> tuple[Session, User]:
        """A new session, its cursor at the highest seq any device of the user acknowledged, and the user as of now; the
        audit row commits with it. Callers that wait together are written together; who is refused leaves nothing.

        Raises CredentialsChanged if the stored hash is none of ``hashes`` any more, or ``identity`` not the user; else
        UserDisabled; BadCredentials if gone, or signed out since it began. What commits later ends the session."""

    async def rotate(
        self, id: str, *, presented: bytes, generation: int, successor: bytes, now: int, idle: int
    ) -> tuple[Session, User] | None:
        """Atomic compare-and-swap of the refresh token: only if the stored hash is ``presented`` and its generation
        ``generation``, the session lives, was refreshed less than ``idle`` ms ago, is within its absolute end and
        the user is neither disabled nor gone; then the stored hash is ``successor``, the generation one higher.
        None if anything of that was not so: nothing changed.
        """

    async def refreshable(self, id: str, *, now: int, idle: int) -> tuple[Session, User, bytes, int, int] | None:
        """(session, user, stored hash, generation, rotated_at) of a session that could be refreshed now, else None."""

    async def get(self, id: str) -> Session:
        """Raises NotFound("session")."""

    async def list(
        self, user_id: str | None, *, now: int, idle: int, limit: int, cursor: str | None
    ) -> tuple[Sequence[Session], str | None]:
        """Sessions that could be refreshed now, newest first, of one user or of all; where to go on, or None."""

    async def purge(self, *, before: int, idle: int, limit: int) -> int:
        """Delete sessions that ended or expired before ``before``, or had been idle for ``idle`` ms then. How many."""


class Clients(Protocol):
    async def create(
        self, *, client_id: str, name: str, scopes: frozenset[str], secret_hash: bytes, by: Actor, now: int
    ) -> Client: ...

    async def authenticate(self, client_id: str, *, secret_hash: bytes) -> Client | None:
        """The client if the hash is its secret's (compared in constant time), else None."""

    async def get(self, client_id: str) -> Client:
        """Raises NotFound("client")."""

    async def list(self, *, limit: int, cursor: str | None) -> tuple[Sequence[Client], str | None]: ...

    async def rotate(self, client_id: str, *, secret_hash: bytes, by: Actor, now: int) -> Client:
        """The old secret is dead at once. Raises NotFound("client")."""

    async def delete(self, client_id: str, *, by: Actor, now: int, until: int) -> tuple[Ban, ...]:
        """Its tokens die with it. Raises NotFound("client")."""


class Revocations(Protocol):
    async def revoke(
        self,
        target: Target,
        *,
        why: str,
        reason: str | None,
        by: Actor,
        now: int,
        until: int,
        listed: bool = True,
        because: tuple[str, Mapping[str, object]] | None = None,
    ) -> Revocation:
        """Sessions end, the rules are written, the audit row too, and a second one of what it is ``because`` of (action
        and detail): one transaction. ``listed``: whether administrators see it in ``list``; of what users end of their
        own without a reason they never do. What is not listed and has a ban already writes nothing: that is the answer.
        Raises NotFound("user"), NotFound("session") or NotFound("client")."""

    async def since(self, number: int, *, now: int, limit: int | None = None) -> Sequence[Ban]:
        """Bans still in force with a number above ``number``, lowest first: all, or the first ``limit``.

        Numbers grow in the order of commits and none is given twice: once one was read, none below it appears.
        """

    async def list(self, *, now: int, limit: int, cursor: str | None) -> tuple[Sequence[Revocation], str | None]:
        """Those still in force, newest first (``bans`` left empty)."""

    async def purge(self, *, now: int, limit: int) -> int: ...


class Failures(Protocol):
    """How full what is forgiven of failed sign-ins is, by key: when (ms) it will have run empty. Keys are hashes."""

    async def until(self, keys: Sequence[bytes]) -> Mapping[bytes, int]:
        """Those of ``keys`` that there are."""

    async def add(self, counts: Sequence[tuple[bytes, int, int]], *, now: int) -> None:
        """One failure for each (key, step, full): it runs empty ``step`` milliseconds later than it would have, at most
        ``full`` from now. What lies ahead by more than twice ``full`` is of a clock that was wrong, and begins anew.

        Callers that wait together are written together; nodes that add at once all count.
        """

    async def clear(self, keys: Sequence[bytes]) -> None:
        """These begin anew."""

    async def purge(self, *, now: int, limit: int) -> int:
        """Forget up to ``limit`` that have run empty. How many."""


class UsedTickets(Protocol):
    async def use(self, id: str, *, until: int) -> bool:
        """Note that the ticket ``id`` is used; it runs out at ``until`` (ms). True once, whichever node was asked.

        Callers that wait together are written together. A caller that is cancelled does not take its use back.
        """

    async def purge(self, *, now: int, limit: int) -> int:
        """Forget up to ``limit`` that ran out at or before ``now``. How many."""


class Keys(Protocol):
    async def signing(self) -> Sequence[SigningKey]:
        """All keys that verify, oldest first."""

    async def announced(self) -> Sequence[tuple[str, int]]:
        """(kid, ``signs_from``) of each, in the same order, no material: asked twice a second, before other readers."""

    async def add_signing(self, key: SigningKey, *, only_if_none: bool = False) -> None: ...

    async def rotate(self, key: SigningKey, *, by: Actor, now: int) -> None:
        """Add ``key``, and the audit row ``key_added`` with it."""

    async def retire(self, kid: str, *, check: Callable[[Sequence[SigningKey]], None], by: Actor, now: int) -> None:
        """Delete it, and write the audit row ``key_retired``, unless ``check`` raises on seeing all keys. No key comes
        or goes between the check and the commit. ``check`` knows that ``kid`` is one of them."""

    async def secret(self, name: str, *, generate: Callable[[], bytes]) -> bytes:
        """The named server secret, generated on first use; every caller on every node gets the same."""


class Identities(Protocol):
    """Who somebody is that comes with the token of a trusted issuer: (issuer, subject) → user."""

    async def find(self, issuer: str, subject: str) -> User | None:
        """The user it is linked to, disabled or not; one who was deleted is disabled, and has no name. None: no one."""

    async def admit(
        self,
        issuer: str,
        subject: str,
        *,
        id: str,
        usernames: Sequence[str],
        password_hash: str,
        create: bool,
        link: bool,
        by: Actor,
        now: int,
    ) -> User:
        """The user of somebody who was not found: linked by another meanwhile, the user ``id`` if ``link``, a new one
        of that id if ``create``, with the first of ``usernames`` that is free. The audit row commits with it.

        However many ask at once, on however many nodes, there is one user. Raises NotFound("user") if there is none
        and none may be made, and Conflict: "id_taken" (a user of that id may not be linked, or was deleted),
        "not_linked" (an admin: never linked this way), "username_taken" (none of them is free).
        """

    async def link(self, user_id: str, issuer: str, subject: str, *, by: Actor, now: int) -> None:
        """From now on they are that user. Raises NotFound("user"), Conflict("identity_taken") if they are another."""

    async def unlink(self, issuer: str, subject: str, *, by: Actor, now: int) -> str:
        """The id of the user they were. Raises NotFound("identity")."""

    async def list(self, user_id: str) -> Sequence[tuple[str, str]]:
        """(issuer, subject) of each that is this user, deleted or not, in order. Raises NotFound("user")."""


class KeySource(Protocol):
    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        """A document of public keys, and for how many seconds it says it is good (None: it does not say).

        It takes a few seconds at most. Raises OSError or ValueError that says why it cannot be had.
        """


class Audit(Protocol):
    async def record(
        self, action: str, *, target: str | None, detail: Mapping[str, object], by: Actor, now: int
    ) -> None:
        """Append one row. What changes the store in the same breath writes its row in its own transaction instead."""

    async def list(self, *, limit: int, cursor: str | None) -> tuple[Sequence[AuditRecord], str | None]:
        """Newest first."""


class Bus(Protocol):
    """Carries hints between nodes. It holds no truth: at most once, in no promised order."""

    def listen(self, receiver: Receiver) -> AbstractAsyncContextManager[None]:
        """Inside the block ``receiver`` hears this node and the others. A bus that cannot be reached is no error:
        it is looked for until it answers, and ``trouble`` says so meanwhile."""

    def publish(self, signals: Sequence[Signal]) -> None:
        """Never waits, never raises. This node's receiver has heard them when it returns; the others hear them soon,
        or are told to ``resync`` those users when the bus is back."""

    def watch(self, user_id: str) -> None:
        """This node now has a connection of the user: their signals are wanted. Once they will be heard, ``resync``
        names the user: what was missed until then was missed."""

    def unwatch(self, user_id: str) -> None: ...

    @property
    def trouble(self) -> str | None:
        """Why hints do not travel now, in words for the operator; None while they do."""

    async def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Roster:
        """Open connections on every node, of one user or of all, by id: the first ``limit`` above ``after``."""


class Receiver(Protocol):
    """Who hears the bus. Called on the event loop; never waits."""

    def signals(self, signals: Sequence[Signal]) -> None: ...

    def resync(self, user_ids: Iterable[str] | None) -> None:
        """Signals of these users (None: of all, and of revocations) may have been missed until now."""

    def connections(self, user_id: str | None, *, after: str | None, limit: int) -> Sequence[ConnectionInfo]:
        """The open connections of this node, by id: the first ``limit`` above ``after``."""


class Presence(Protocol):
    """Who is online, on all nodes together. It may be a few seconds old, and forgets a dead node after its time."""

    def keep(self) -> AbstractAsyncContextManager[None]:
        """Inside the block the other nodes are told of this one. On the way out this node's part is taken back."""

    def joined(self, user_id: str, session: str | None) -> None:
        """Once a connection. Never waits, never raises; nor does ``left``."""

    def left(self, user_id: str, session: str | None) -> None:
        """A user is gone only when nothing has joined for a moment: one who reconnects was never away."""

    async def online(self, user_ids: Sequence[str]) -> Mapping[str, bool | None]:
        """Whether any device of each user is connected, on any node; None when that cannot be known now. Asked in
        every push: it answers within a fraction of a second, whatever is broken."""

    async def of(self, user_ids: Sequence[str]) -> Sequence[PresenceInfo]:
        """One each, in order."""

    async def summary(self) -> PresenceSummary: ...


class Limiter(Protocol):
    """Token buckets that all nodes take from, as far as they can: what this node itself lets through is within the rate
    in any case, whatever the others, or what lies between, do."""

    def keep(self) -> AbstractAsyncContextManager[None]:
        """Inside the block the buckets are shared with the other nodes. Nobody need wait for that."""

    async def take(self, policy: Policy, key: str, amount: float) -> float:
        """0 if ``amount`` was in the bucket of ``key`` and is taken, else the seconds until it may be (nothing is
        taken). More than ``burst`` at once is given when the bucket is full, and paid for afterwards. Never raises;
        answers within a fraction of a second, whatever is broken."""


class Transport(Protocol):
    """The wire end of one connection, as the connection sees it. No method waits or raises, in any state."""

    kind: str
    address: str | None

    @property
    def heard(self) -> int:
        """Grows with every sign of life that comes in: what a heartbeat asks after."""

    @property
    def writable(self) -> bool:
        """Below its high-water mark. When that becomes true again, ``Connection.drained()`` is called."""

    def write(self, *payloads: bytes) -> None:
        """Each is what ``encode`` made of a frame; all in one go."""

    def encode(self, frame: EncodedFrame) -> bytes:
        """The form of ``frame`` this transport writes."""

    def send(self, frame: EncodedFrame) -> int:
        """One frame, if it is writable: the bytes written, else 0."""

    def ping(self) -> None: ...
    def pending(self) -> int:
        """Bytes written and not yet taken by the peer, the kernel's queue included."""

    def close(self, why: Close, *, linger: float) -> None:
        """Say goodbye; reset ``linger`` seconds later if the peer is still there."""

    def abort(self) -> None:
        """Gone at once, unsent data thrown away: no peer that does not read can hold it up."""


class Handled(Protocol):
    """The connection, as its transport sees it. Called on the event loop; never waits, never raises."""

    def received(self, text: str | bytes) -> None:
        """One whole text message, valid UTF-8 and within the size limit."""

    def drained(self) -> None:
        """``writable`` has become true again."""

    def lost(self, why: Close) -> None:
        """Called exactly once, last, however it ended; ``why`` is what this end knows of the reason."""


class EncodedFrame(Protocol):
    """A frame that renders itself once per wire form."""

    @property
    def json(self) -> bytes: ...
    @property
    def ws(self) -> bytes: ...
    def sse(self, epoch: str) -> bytes: ...
    @property
    def parts(self) -> Sequence[EncodedFrame]: ...
