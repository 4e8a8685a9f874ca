"""PostgreSQL as several nodes meet it: at once, out of order, in each other's way, and when it goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from faultproxy import Links
from servers import Postgres, short_directory
from sqlalchemy import Connection, text
from sqlalchemy.util import await_only
from stores import signing_in
from wire import eventually_async

from gateway.errors import CredentialsChanged, StoreUnavailable
from gateway.model import Actor, Append, Appended, Draft, Target
from gateway.store.engine import Store, open_store, upgrade
from gateway.store.errors import StoreError
from gateway.store.postgres.database import PostgresDatabase

NOW = 1_700_000_000_000
BY = Actor("u-admin")


@pytest.fixture
def url(database: Callable[[], str]) -> str:
    return database()


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two nodes on one database."""
    async with open_store(url) as one, open_store(url) as other:
        yield one, other


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server that the test may break."""
    with short_directory("own-pg") as directory:
        server = Postgres(directory).start()
        yield server
        if server.running:
            server.resume()
            server.stop(how="immediate")


async def user(store: Store, id: str) -> None:
    await store.users.create(id=id, username=id, role="user", password_hash="x", by=BY, now=NOW)


def draft(user_id: str, id: str) -> Draft:
    return Draft(id, user_id, '"title":"t"', None, NOW, NOW + 1_000_000)


async def session(store: Store, id: str, user_id: str) -> None:
    await store.sessions.start(signing_in(id, user_id, now=NOW, until=NOW + 10**9))


def plain(url: str) -> str:
    return url.replace("+asyncpg", "")


@contextlib.asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(plain(url))
    try:
        yield connection
    finally:
        await connection.close()


# -- order ------------------------------------------------------------------------------------------------------------


async def test_two_nodes_that_store_for_the_same_users_at_once_leave_no_hole(nodes: tuple[Store, Store]) -> None:
    users = [f"u{n}" for n in range(8)]
    for id in users:
        await user(nodes[0], id)

    async def produce(node: int) -> None:
        for n in range(40):
            # Opposite orders: without sorted locks this is a deadlock every time.
            order = users if (n + node) % 2 else users[::-1]
            drafts = tuple(draft(id, f"n{node}.{n}.{id}") for id in order)
            await nodes[node].inbox.append(Append("c~shop", drafts))

    await asyncio.gather(produce(0), produce(1))
    for id in users:
        page = await nodes[0].inbox.page(id, after=0, now=NOW)
        assert [entry.seq for entry in page.entries] == list(range(1, 81))


async def test_commits_forced_out_of_order_never_let_a_reader_skip(url: str, nodes: tuple[Store, Store]) -> None:
    """G6: one transaction of a user has its number and has not committed; the next one waits for it."""
    await user(nodes[0], "ann")
    async with by_hand(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE inboxes SET head = head + 1, unread = unread + 1 WHERE user_id = 'ann'")
        await connection.execute(
            "INSERT INTO inbox (user_id, seq, id, sender, content, size, created_at, expires_at)"
            f" VALUES ('ann', 1, 'first', 'c~shop', '', 0, {NOW}, {NOW + 1000})"
        )
        second = asyncio.ensure_future(nodes[1].inbox.append(Append("c~shop", (draft("ann", "second"),))))
        await eventually_async(lambda: waits_for_a_lock(url), what="the second waits")
        page = await nodes[0].inbox.page("ann", after=0, now=NOW)
        assert (page.entries, page.upto) == ((), 0)
        await transaction.commit()
    assert (await second).outcomes[0].seq == 2
    page = await nodes[0].inbox.page("ann", after=0, now=NOW)
    assert [entry.id for entry in page.entries] == ["first", "second"]


async def waits_for_a_lock(url: str) -> bool:
    async with by_hand(url) as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


async def test_a_new_password_that_commits_first_is_seen_by_the_sign_in_that_waits_for_it(
    url: str, nodes: tuple[Store, Store]
) -> None:
    await user(nodes[0], "ann")
    async with by_hand(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE users SET password_hash = 'new', role = 'admin' WHERE id = 'ann'")
        old, new = (
            asyncio.ensure_future(
                node.sessions.start(signing_in(hashed, "ann", now=NOW, until=NOW, hashes=frozenset({hashed})))
            )
            for node, hashed in zip(nodes, ("x", "new"), strict=True)
        )
        await eventually_async(lambda: waits_for_a_lock(url), what="they wait")
        await transaction.commit()
    with pytest.raises(CredentialsChanged):
        await old
    _, ann = await new
    assert ann.role == "admin", "as of the commit"


async def test_who_is_unlinked_first_signs_in_no_more_and_who_signs_in_first_is_waited_for(
    url: str, nodes: tuple[Store, Store]
) -> None:
    await user(nodes[0], "ann")
    sign_in = signing_in("s1", "ann", now=NOW, until=NOW, identity=("iss", "sub"))
    for first in ("unlink", "sign in"):
        await nodes[0].identities.link("ann", "iss", "sub", by=BY, now=NOW)
        async with by_hand(url) as connection:
            transaction = connection.transaction()
            await transaction.start()
            if first == "unlink":
                await connection.execute("DELETE FROM identities")
                started = asyncio.ensure_future(nodes[1].sessions.start(sign_in))
                await eventually_async(lambda: waits_for_a_lock(url), what="the sign-in waits")
                await transaction.commit()
                with pytest.raises(CredentialsChanged):
                    await started
            else:
                await connection.execute("LOCK TABLE audit IN SHARE MODE")  # it gets no further than that
                started = asyncio.ensure_future(nodes[1].sessions.start(sign_in))
                await eventually_async(lambda: waits_for_a_lock(url), what="the sign-in waits")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await connection.execute("SELECT * FROM identities FOR UPDATE NOWAIT")
                await transaction.rollback()
                await started


async def test_crowds_that_sign_in_at_two_nodes_in_opposite_orders_all_get_in(nodes: tuple[Store, Store]) -> None:
    users = [f"u{number}" for number in range(20)]
    for id in users:
        await user(nodes[0], id)
    for n in range(5):
        started = await asyncio.gather(
            *(
                node.sessions.start(signing_in(f"{id}.{n}.{place}", id, now=NOW, until=NOW, limit=1))
                for place, (node, order) in enumerate(zip(nodes, (users, users[::-1]), strict=True))
                for id in order
            )
        )
        assert len(started) == 40
    living, _ = await nodes[0].sessions.list(None, now=NOW, idle=10**9, limit=500, cursor=None)
    assert sorted(session.user_id for session in living) == sorted(users)


async def test_a_page_and_its_counters_are_one_snapshot(url: str, nodes: tuple[Store, Store]) -> None:
    await user(nodes[0], "ann")
    stop = asyncio.Event()

    async def produce() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            await nodes[0].inbox.append(Append("c~shop", (draft("ann", f"n{n}"),)))

    producing = asyncio.create_task(produce())
    after = 0
    try:
        while after < 150:
            page = await nodes[1].inbox.page("ann", after=after, now=NOW)
            numbers = [entry.seq for entry in page.entries]
            assert numbers == list(range(after + 1, after + 1 + len(numbers)))
            assert page.upto == after + len(numbers), "a number that is on its way was called a gap"
            after = page.upto
    finally:
        stop.set()
        await producing


async def test_whoever_reads_the_number_of_a_revocation_has_read_every_lower_one(nodes: tuple[Store, Store]) -> None:
    for n in range(12):
        await user(nodes[0], f"u{n}")
        for k in range(3):
            await session(nodes[0], f"s{n}.{k}", f"u{n}")
    seen: list[int] = []
    done = asyncio.Event()

    async def poll() -> None:
        highest = 0
        while True:
            last = done.is_set()
            bans = await nodes[1].revocations.since(highest, now=NOW)
            seen.extend(ban.number for ban in bans)
            highest = max([highest, *(ban.number for ban in bans)])
            if last:
                return

    polling = asyncio.create_task(poll())
    await asyncio.gather(
        *(
            nodes[n % 2].revocations.revoke(
                Target(user_id=f"u{n}"), why="token_revoked", reason="r", by=BY, now=NOW + 1, until=NOW + 10**9
            )
            for n in range(12)
        ),
        *(
            nodes[n % 2].revocations.revoke(
                Target(session=f"s{n}.0"), why="token_revoked", reason="r", by=BY, now=NOW + 1, until=NOW + 10**9
            )
            for n in range(12)
        ),
    )
    done.set()
    await polling
    every = await nodes[0].revocations.since(0, now=NOW)
    assert seen == [ban.number for ban in every]
    assert len(every) >= 36  # a session that ended before its user's others is named once


async def test_a_revocation_whose_commit_is_late_has_the_higher_number(url: str, nodes: tuple[Store, Store]) -> None:
    """It has been written, and stands still; another is asked for, and a node polls. None is passed over."""
    for id in ("ann", "bob"):
        await user(nodes[0], id)
        await session(nodes[0], f"s-{id}", id)
    seen: list[int] = []

    async def poll() -> None:
        seen.extend(ban.number for ban in await nodes[1].revocations.since(max(seen, default=0), now=NOW))

    def revoke(node: int, id: str, reason: str) -> asyncio.Future[Any]:
        return asyncio.ensure_future(
            nodes[node].revocations.revoke(
                Target(session=f"s-{id}"), why="token_revoked", reason=reason, by=BY, now=NOW + 1, until=NOW + 10**9
            )
        )

    async with held_up(url, before="INSERT", on="revocations", if_so="NEW.reason = 'late'") as until:
        late = revoke(0, "ann", "late")
        await until(1)
        soon = revoke(1, "bob", "soon")
        await asyncio.wait([soon, standing := asyncio.ensure_future(until(2))], return_when="FIRST_COMPLETED")
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)
        await poll()
    await asyncio.gather(late, soon)
    await poll()
    assert seen == [ban.number for ban in await nodes[0].revocations.since(0, now=NOW)]
    assert len(seen) == 2


async def test_a_token_that_two_nodes_end_at_once_has_one_rule(url: str, nodes: tuple[Store, Store]) -> None:
    def revoke(node: int) -> asyncio.Future[Any]:
        return asyncio.ensure_future(
            nodes[node].revocations.revoke(
                Target(token_id="jti"), why="token_revoked", reason=None, by=BY, now=NOW + 1, until=NOW + 10**9,
                listed=False,
            )
        )  # fmt: skip

    async with held_up(url, before="INSERT", on="revocations", if_so="NEW.subject = 'jti'") as until:
        first = revoke(0)
        await until(1)
        second = revoke(1)
        await asyncio.wait([second, standing := asyncio.ensure_future(until(2))], return_when="FIRST_COMPLETED")
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)
    done = await asyncio.gather(first, second)
    assert [one.written for one in done] == [True, False]
    assert len(await nodes[0].revocations.since(0, now=NOW)) == 1


# -- one of many wins -------------------------------------------------------------------------------------------------


async def test_one_key_used_on_two_nodes_at_once_is_one_notification(nodes: tuple[Store, Store]) -> None:
    await user(nodes[0], "ann")
    for round in range(10):
        asked = [
            nodes[n % 2].inbox.append(Append("c~shop", (draft("ann", f"n{round}.{n}"),), (f"key{round}", b"same")))
            for n in range(8)
        ]
        answers = await asyncio.gather(*asked)
        assert len({answer.outcomes for answer in answers}) == 1
        assert sum(not answer.replayed for answer in answers) == 1
    assert (await nodes[0].inbox.states(["ann"]))["ann"].head == 10


async def test_fifty_refreshes_of_one_token_over_two_nodes_have_one_successor(nodes: tuple[Store, Store]) -> None:
    await user(nodes[0], "ann")
    await session(nodes[0], "s1", "ann")
    swaps = await asyncio.gather(
        *(
            nodes[n % 2].sessions.rotate(
                "s1", presented=b"hash 0", generation=0, successor=b"%d" % n, now=NOW + 1, idle=10**9
            )
            for n in range(50)
        )
    )
    assert sum(swap is not None for swap in swaps) == 1


@contextlib.asynccontextmanager
async def held_up(url: str, *, before: str, on: str, if_so: str = "true") -> AsyncIterator[Callable[[int], Any]]:
    """Inside the block whoever does ``before`` (INSERT, DELETE) to table ``on`` stands still in the middle of their
    transaction, ``if_so``. The call waits until so many stand somewhere; leaving the block lets them go on."""
    async with by_hand(url) as connection:
        await connection.execute(
            "CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " PERFORM pg_advisory_xact_lock_shared(42); RETURN COALESCE(NEW, OLD); END $$"
        )
        await connection.execute(
            f"CREATE TRIGGER stand_still BEFORE {before} ON {on} FOR EACH ROW WHEN ({if_so})"
            " EXECUTE FUNCTION stand_still()"
        )
        await connection.execute("SELECT pg_advisory_lock(42)")
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )

        async def until(count: int) -> None:
            async def stand() -> bool:
                return int(await connection.fetchval(waiting)) >= count

            await eventually_async(stand, what=f"{count} stand still")

        try:
            yield until
        finally:
            await connection.execute("SELECT pg_advisory_unlock(42)")


async def test_a_sign_in_that_meets_a_revocation_of_its_user_is_ended_or_refused(
    url: str, nodes: tuple[Store, Store]
) -> None:
    await user(nodes[0], "ann")
    async with held_up(url, before="INSERT", on="sessions") as until:
        signing_in = asyncio.ensure_future(session(nodes[0], "s1", "ann"))
        await until(1)
        revoking = asyncio.ensure_future(
            nodes[1].revocations.revoke(
                Target(user_id="ann"), why="token_revoked", reason="r", by=BY, now=NOW + 1, until=NOW + 10**9
            )
        )
        await until(2)
    await asyncio.gather(signing_in, revoking)
    assert (await nodes[0].sessions.get("s1")).ended_why == "token_revoked"


async def test_two_nodes_that_trim_one_inbox_at_once_take_the_surplus_out_once(
    url: str, nodes: tuple[Store, Store]
) -> None:
    await user(nodes[0], "ann")
    await nodes[0].inbox.append_all([Append("c~shop", (draft("ann", f"n{n}"),)) for n in range(10)])
    async with held_up(url, before="DELETE", on="inbox") as until:
        trims = [asyncio.ensure_future(node.inbox.trim(["ann"], keep=6, now=NOW)) for node in nodes]
        await until(2)
    assert sorted(await asyncio.gather(*trims)) == [0, 4]
    page = await nodes[0].inbox.page("ann", after=0, now=NOW)
    assert [entry.seq for entry in page.entries] == [5, 6, 7, 8, 9, 10]
    assert (await nodes[0].inbox.states(["ann"]))["ann"].unread == 6


async def test_two_admins_who_demote_each_other_at_once_do_not_both_succeed(nodes: tuple[Store, Store]) -> None:
    for round in range(8):
        a, b = f"a{round}", f"b{round}"
        for id in (a, b):
            await nodes[0].users.create(id=id, username=id, role="admin", password_hash="x", by=BY, now=NOW)
        if round == 0:
            continue
        await nodes[0].users.update(f"a{round - 1}", role="user", disabled=None, by=BY, now=NOW, until=NOW + 1)
        with contextlib.suppress(Exception):
            await nodes[0].users.update(f"b{round - 1}", role="user", disabled=None, by=BY, now=NOW, until=NOW + 1)
        both = await asyncio.gather(
            nodes[0].users.update(a, role="user", disabled=None, by=BY, now=NOW, until=NOW + 1),
            nodes[1].users.update(b, role="user", disabled=None, by=BY, now=NOW, until=NOW + 1),
            return_exceptions=True,
        )
        assert sum(isinstance(result, BaseException) for result in both) == 1
        for id in (a, b):
            with contextlib.suppress(Exception):
                await nodes[0].users.update(id, role="admin", disabled=None, by=BY, now=NOW, until=NOW + 1)


async def test_acks_reads_and_pushes_of_one_user_on_two_nodes_do_not_get_in_each_others_way(
    nodes: tuple[Store, Store],
) -> None:
    await user(nodes[0], "ann")
    await session(nodes[0], "s1", "ann")
    await nodes[0].inbox.append_all([Append("c~shop", (draft("ann", f"n{n}"),)) for n in range(60)])

    async def ack(node: int) -> None:
        for seq in range(1 + node, 61, 2):
            await nodes[node].inbox.ack("ann", session="s1", seq=seq, now=NOW)

    async def read(node: int) -> None:
        for n in range(node, 60, 2):
            await nodes[node].inbox.mark_read("ann", ids=[f"n{n}"], now=NOW)

    async def withdraw(node: int) -> None:
        for n in range(node, 60, 6):
            await nodes[node].inbox.withdraw(f"n{n}", sender=None, now=NOW)

    async def push(node: int) -> None:
        for n in range(30):
            await nodes[node].inbox.append(Append("c~shop", (draft("ann", f"more{node}.{n}"),)))

    await asyncio.gather(*(work(node) for node in (0, 1) for work in (ack, read, withdraw, push)))
    state = (await nodes[0].inbox.states(["ann"]))["ann"]
    assert (state.head, state.unread) == (120, 60)
    assert (await nodes[0].sessions.get("s1")).cursor == 60


# -- when it does not do what it should -------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [False, True], ids=["before the server sees it", "after it was done"])
async def test_a_commit_whose_answer_is_lost_is_unknown_and_is_not_done_twice(
    url: str, postgres: Postgres, done: bool
) -> None:
    """Without a key nobody could tell the second from the first."""
    with Links() as links:
        link = links.link("pg", postgres.port)
        async with open_store(url.replace(f":{postgres.port}/", f":{link.port}/")) as store:
            await user(store, "ann")
            for number in range(3):
                link.cut_after(b"COMMIT;", answered=done)  # and not at "READ COMMITTED"
                with pytest.raises(StoreUnavailable):
                    await store.inbox.append(Append("c~shop", (draft("ann", f"n{number}"),)))
            assert link.counts.cuts == 3
            assert (await store.inbox.states(["ann"]))["ann"].head == (3 if done else 0)


async def test_a_deadlock_is_run_again(url: str, nodes: tuple[Store, Store]) -> None:
    for id in ("ann", "bob"):
        await user(nodes[0], id)
    met: list[int] = []
    both = asyncio.Barrier(2)

    def crosswise(first: str, second: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            lock = text("UPDATE inboxes SET rev = rev + 1 WHERE user_id = :id")
            connection.execute(lock, {"id": first})
            met.append(1)
            if len(met) <= 2:
                await_only(both.wait())
            connection.execute(lock, {"id": second})

        return work

    await asyncio.gather(
        nodes[0].database.write(crosswise("ann", "bob")), nodes[1].database.write(crosswise("bob", "ann"))
    )
    assert len(met) > 2, "nothing was in the way: this shows nothing"
    states = await nodes[0].inbox.states(["ann", "bob"])
    assert [state.rev for state in states.values()] == [2, 2]


async def test_a_lock_that_is_not_let_go_of_makes_a_push_unknown_and_harms_no_later_one(
    url: str, nodes: tuple[Store, Store]
) -> None:
    """A node that is stopped in the middle of a transaction: the server ends that transaction."""
    await user(nodes[0], "ann")
    async with by_hand(url) as connection:
        await connection.execute("SET idle_in_transaction_session_timeout = 0")
        await connection.execute("BEGIN")
        await connection.execute("UPDATE inboxes SET rev = rev + 1 WHERE user_id = 'ann'")
        with pytest.raises(StoreUnavailable):
            await nodes[0].inbox.append(Append("c~shop", (draft("ann", "n1"),)))
        await connection.execute("ROLLBACK")
    assert (await nodes[0].inbox.append(Append("c~shop", (draft("ann", "n2"),)))).outcomes[0].seq == 1


async def test_a_transaction_that_a_stopped_node_left_open_is_ended_by_the_server(
    nodes: tuple[Store, Store],
) -> None:
    shown = await nodes[0].database.write(
        lambda c: {
            name: c.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout")
        }
    )
    assert shown == {"idle_in_transaction_session_timeout": "2s", "statement_timeout": "5s", "lock_timeout": "4s"}


async def test_a_bad_value_fails_its_own_item_only(nodes: tuple[Store, Store]) -> None:
    await user(nodes[0], "ann")
    poisoned = Draft("n2", "ann", '"title":"\x00"', None, NOW, NOW + 1)
    results = await nodes[0].inbox.append_all(
        [Append("c", (draft("ann", "n1"),)), Append("c", (poisoned,)), Append("c", (draft("ann", "n3"),))]
    )
    assert [isinstance(result, Appended) for result in results] == [True, False, True]
    assert (await nodes[0].inbox.states(["ann"]))["ann"].head == 2


async def test_a_server_that_was_killed_is_met_by_503_at_once_and_used_again_when_it_is_back(own: Postgres) -> None:
    own.create("gw")
    async with open_store(own.url("gw")) as store:
        await user(store, "ann")
        await asyncio.gather(*(store.inbox.page("ann", after=0, now=NOW) for _ in range(4)))
        own.kill()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(2.0):
                    await store.inbox.append(Append("c~shop", (draft("ann", "n1"),)))
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(2.0):
                    await store.users.get("ann")
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(2.0):
                    await store.revocations.since(0, now=NOW)
        own.start()
        assert (await store.inbox.append(Append("c~shop", (draft("ann", "n2"),)))).outcomes[0].seq == 1
        await store.revocations.since(0, now=NOW)


async def test_connections_that_a_restart_killed_are_noticed_by_nobody(own: Postgres) -> None:
    own.create("gw")
    async with open_store(own.url("gw")) as store:
        await user(store, "ann")
        own.stop()
        own.start()
        assert (await store.inbox.append(Append("c~shop", (draft("ann", "n1"),)))).outcomes[0].seq == 1
        assert (await store.users.get("ann")).id == "ann"


async def test_a_server_that_is_stopped_holds_nobody_for_ever(own: Postgres) -> None:
    """G2: every process of the server stands still; its sockets stay open."""
    own.create("gw")
    async with open_store(own.url("gw"), connections=3) as store:
        await user(store, "ann")
        backends = await own.ask("SELECT pid FROM pg_stat_activity WHERE datname = 'gw'")
        stopped = [own.pid, *(row["pid"] for row in backends)]
        signal_all(stopped, "STOP")
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    async with asyncio.timeout(20.0):
                        await store.inbox.append(Append("c~shop", (draft("ann", "n1"),)))
        finally:
            signal_all(stopped, "CONT")
        await eventually_async(lambda: stores(store, "n9"), what="it is used again")
        left = await own.ask("SELECT state FROM pg_stat_activity WHERE datname = 'gw' AND state LIKE 'idle in%'")
        assert left == []


def signal_all(pids: list[int], name: str) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, f"SIG{name}"))


async def stores(store: Store, id: str) -> bool:
    try:
        await store.inbox.append(Append("c~shop", (draft("ann", id),), (id, b"f")))
    except StoreUnavailable:
        return False
    return True


async def test_a_database_that_became_read_only_is_503_and_works_again_when_it_is_not(
    url: str, nodes: tuple[Store, Store], postgres: Postgres
) -> None:
    await user(nodes[0], "ann")
    name = url.rpartition("/")[2]
    await postgres.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await postgres.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(StoreUnavailable):
        await nodes[0].inbox.append(Append("c~shop", (draft("ann", "n1"),)))
    assert (await nodes[0].users.get("ann")).id == "ann"
    assert await nodes[0].meta.writable() is False
    await postgres.ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await postgres.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert await nodes[0].meta.writable() is True
    assert await stores(nodes[0], "n2")


async def test_a_caller_who_goes_away_leaves_no_transaction_open(url: str, nodes: tuple[Store, Store]) -> None:
    await user(nodes[0], "ann")
    for n in range(200):
        task = asyncio.ensure_future(nodes[0].inbox.mark_read("ann", ids=[f"n{n}"], now=NOW))
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, no time
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with by_hand(url) as connection:
        idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND datname = current_database()"

        async def none_left() -> bool:
            return not await connection.fetchval(idle)

        await eventually_async(none_left, what="no transaction is open")
    assert isinstance(nodes[0].database, PostgresDatabase)


# -- starting ---------------------------------------------------------------------------------------------------------


async def test_nodes_that_start_at_once_on_an_empty_database_migrate_it_once(postgres: Postgres) -> None:
    url = postgres.create("together")
    done = await asyncio.gather(*(upgrade(url) for _ in range(4)))
    assert sorted(done) == [False, False, False, True]
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(url)) for _ in range(3)]
        secrets = {await one.keys.secret("x", generate=lambda n=n: b"%d" % n) for n, one in enumerate(stores)}  # type: ignore[misc]
        assert len(secrets) == 1
        assert len({one.epoch.current for one in stores}) == 1


async def test_a_new_step_runs_beside_nodes_of_this_version(url: str, nodes: tuple[Store, Store]) -> None:
    """Expand and contract: what a newer version adds does not disturb this one, running or starting."""
    async with by_hand(url) as connection:
        await connection.execute("ALTER TABLE inbox ADD COLUMN topic TEXT")
        await connection.execute("CREATE TABLE topics (name TEXT PRIMARY KEY)")
        await connection.execute("UPDATE alembic_version SET version_num = '0099'")
    await user(nodes[0], "ann")
    assert await stores(nodes[0], "n1")
    async with open_store(url) as late:
        assert [entry.id for entry in (await late.inbox.page("ann", after=0, now=NOW)).entries] == ["n1"]
    async with by_hand(url) as connection:
        await connection.execute("UPDATE meta SET value = '0098' WHERE name = 'compatible'")
    with pytest.raises(StoreError, match="newer than this gateway"):
        async with open_store(url):
            pass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/blank", "/nothing_there"), "does not exist"),
        (("127.0.0.1", "127.0.0.1:1"), "cannot be"),
        (("postgres@", "nobody_known@"), "nobody_known"),
        (("/blank", "/blank?sslmode=verify-full"), "cannot be"),
        (("/blank", "/blank?pool=3"), "pool"),
        (("/blank", "/blank?sslmode=maybe"), "sslmode"),
    ],
)
async def test_a_database_that_cannot_be_used_stops_the_start_with_its_reason(
    database: Callable[[], str], postgres: Postgres, change: tuple[str, str], words: str
) -> None:
    url = postgres.url("blank").replace(*change)
    if change[0] == "127.0.0.1":
        url = url.replace(f":1:{postgres.port}", ":1")
    with pytest.raises(StoreError, match=words) as refused:
        async with open_store(url):
            pass
    assert "Traceback" not in str(refused.value)
