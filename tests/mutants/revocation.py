"""Mutants of revocation and sign-in: whoever was shut out still hears something, or gets in again."""

from __future__ import annotations

from tests.mutants.delivery import P3, TELLING
from tests.mutants.mutant import Edit, Mutant, Sight

REVOKE, MEMORY = "gateway/revoke.py", "gateway/revocations.py"
PAUSED = (
    "tests/faults/test_stop.py"
    "::test_P3_after_a_pause_nobody_healthy_is_dropped_and_who_was_revoked_meanwhile_hears_nothing_more"
)
ALWAYS_FRESH = Edit(MEMORY, "        return at - self._read_at <= FRESH_FOR\n", "        return True\n")
I8 = r"^(AssertionError: )?I8: "

REVOCATION = (
    Mutant(
        "close-without-abort",
        "a revoked reader that has stalled is sent a goodbye and waited for: it stays until it reads",
        [
            Edit(
                TELLING,
                "            self.transport.abort()  # a goodbye",
                "            self.transport.close(why, linger=CLOSE_LINGER)  # a",
            ),
            Edit(
                "gateway/sockets/protocol.py",
                "            wire.reset(self._transport)\n",
                "            self._transport.close()\n",
            ),
        ],
        [
            Sight(
                "tests/faults/test_stalled.py"
                "::test_REV_04_a_stalled_reader_is_gone_within_a_second_of_its_revocation[session]",
                r"the descriptors are gone: not within",
            )
        ],
    ),
    Mutant(
        "revoked-by-bell-only",
        "revocations are not polled: whoever misses the bell, or has no Redis, never hears of them",
        [
            ALWAYS_FRESH,
            Edit(
                REVOKE,
                "                async with asyncio.timeout(POLL_EVERY):\n",
                "                async with asyncio.timeout(3600):\n",
            ),
        ],
        [Sight(P3, I8)],
    ),
    Mutant(
        "stale-node-writes",
        "a node that stood still writes before it has read what was revoked meanwhile",
        [ALWAYS_FRESH],
        [Sight(PAUSED, r"a revoked session was sent something|its inbox was read for a revoked session")],
    ),
    Mutant(
        "no-second-check",
        "a revocation between the check of a token and the registration of its socket is missed",
        [
            Edit(
                "gateway/sockets/endpoint.py",
                "        if verdict is not None:\n            connection.close(verdict)\n",
                "",
            ),
            Edit(
                "gateway/sockets/endpoint.py",
                "        connection.attach(extension.hand_over(connection) if queued is None else queued)\n",
                "        import asyncio\n"
                "        await asyncio.sleep(0.05)\n"
                "        connection.attach(extension.hand_over(connection) if queued is None else queued)\n",
            ),
        ],
        [
            Sight(
                "tests/wire/test_revocation_wire.py"
                "::test_REV_05_of_200_sockets_that_opened_during_their_revocation_none_hears_of_what_came_after",
                r"TimeoutError|assert .* not in",
            )
        ],
    ),
    Mutant(
        "refresh-without-swap",
        "a refresh replaces whatever is stored: two at once have two successors, and a stolen chain goes on",
        [
            Edit(
                "gateway/store/sessions.py",
                "                sessions.c.refresh_hash == presented,\n                sessions.c.generation == generation,\n",
                "",
            )
        ],
        [
            Sight(
                "tests/contracts/test_store_accounts.py::test_one_of_fifty_parallel_rotations_wins", r"assert 50 == 1"
            ),
            Sight(
                "tests/store/test_postgres.py::test_fifty_refreshes_of_one_token_over_two_nodes_have_one_successor",
                r"assert 50 == 1",
            ),
        ],
    ),
    Mutant(
        "rules-out-of-turn",
        "revocations get their numbers in the order of their inserts: one that commits late hides below one already"
        " read, for ever",
        [Edit("gateway/store/rules.py", '    in_turn(connection, "rules")\n', "")],
        [
            Sight(
                "tests/store/test_postgres.py::test_whoever_reads_the_number_of_a_revocation_has_read_every_lower_one",
                r"assert \[",
            )
        ],
    ),
)
