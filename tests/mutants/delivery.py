"""Mutants of delivery: what is acknowledged for a client, told twice or not at all, or written to who does not read."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

TELLING, FEED, MARKING = "gateway/telling.py", "gateway/feed.py", "gateway/store/marking.py"
P3 = (
    "tests/faults/test_pauses.py"
    "::test_P3_a_node_that_stood_still_under_load_goes_on_and_tells_nothing_to_who_was_revoked_meanwhile"
)
ACK = (
    "asyncio.ensure_future(self.ties.inbox.ack(self.claims.subject, session=self.claims.session or '',"
    " seq={seq}, now=millis(self.ties.clock())))\n"
)

DELIVERY = (
    Mutant(
        "advance-on-send",
        "what was written to a socket counts as acknowledged: what a dead client never read is gone",
        [
            Edit(
                TELLING,
                "            self._write(frame)\n        elif verdict is Verdict.READ:\n            self._catch_up()\n\n"
                "    def offer_passing",
                f"            self._write(frame)\n            {ACK.format(seq='seq')}"
                "        elif verdict is Verdict.READ:\n            self._catch_up()\n\n"
                "    def offer_passing",
            ),
            Edit(
                TELLING,
                "            self._write(frames.notification(item))\n",
                f"            self._write(frames.notification(item))\n            {ACK.format(seq='item.seq')}",
            ),
        ],
        [Sight(P3, r"^(AssertionError: )?I7: .* the cursor is")],
    ),
    Mutant(
        "ack-moves-back",
        "an ack is stored as it comes: an older one moves the cursor back",
        [
            Edit(
                MARKING,
                "        if ack.seq > cursors.get(ack.session, row.cursor):\n",
                "        if ack.seq:\n",
            )
        ],
        [
            Sight(
                "tests/contracts/test_store_inbox.py::test_a_cursor_never_moves_back",
                r"assert \d == 7",
            )
        ],
    ),
    Mutant(
        "gap-untold",
        "what left the inbox is passed over in silence: a client waits for ever, or believes that it has all",
        [
            Edit(
                FEED,
                "                self.after = missing.last\n                yield missing\n            self.after = entry",
                "                self.after = missing.last\n            self.after = entry",
            ),
            Edit(
                FEED,
                "            self.after = missing.last\n            yield missing\n\n    def settle",
                "            self.after = missing.last\n\n    def settle",
            ),
        ],
        [
            Sight(P3, r"^(AssertionError: )?I3: .* after"),
            Sight(
                "tests/wire/test_promise.py::test_beyond_the_inbox_limit_the_oldest_fall_out_and_are_told_with_a_gap",
                r"'notification'|\"notification\"",
            ),
        ],
    ),
    Mutant(
        "replay-and-live-both",
        "a live notification is written while the inbox is being read: the same number twice, or out of order",
        [
            Edit(
                FEED,
                "        if not self.behind and seq == self.after + 1:\n            self.after = seq\n",
                "        if seq >= self.after + 1:\n            self.after = max(self.after, seq if not self.behind else 0)\n",
            )
        ],
        [Sight(P3, r"^(AssertionError: )?I3: .* after")],
    ),
    Mutant(
        "foreign-epoch-trusted",
        "a number kept from another history of the log is trusted after a restore: notifications are passed over",
        [
            Edit(
                TELLING,
                "trusted = kept is not None and kept[1] == ties.epoch.current and kept[0] <= state.head",
                "trusted = kept is not None and kept[0] <= state.head",
            )
        ],
        [
            Sight(
                "tests/faults/test_disk.py"
                "::test_S9_a_backup_under_load_restores_to_a_new_epoch_in_which_no_session_and_no_number_is_trusted",
                r"assert False is True",
            )
        ],
    ),
    Mutant(
        "rung-before-hello-forgotten",
        "what is committed while a socket opens is not looked for: it comes with the next one, or in twenty seconds",
        [
            Edit(
                TELLING,
                "            if self._rung:\n                return False",
                "            if False:\n                return False",
            )
        ],
        [
            Sight(
                "tests/faults/test_races.py::test_N13_what_is_committed_while_a_socket_opens_reaches_it_at_once",
                r"TimeoutError",
            )
        ],
    ),
    Mutant(
        "writes-to-who-does-not-read",
        "a stalled reader's frames are kept in memory: a few of them take the node down",
        [
            Edit(
                "gateway/sockets/protocol.py",
                "        return not self._paused and self._state <= _State.OPEN\n",
                "        return self._state <= _State.OPEN\n",
            )
        ],
        [
            Sight(
                "tests/faults/test_stalled.py::test_N2_stalled_readers_cost_bounded_memory_delay_nobody_and_are_served"
                "_when_they_read_again",
                r"grown by \d+ bytes",
            )
        ],
    ),
    Mutant(
        "stop-without-drain",
        "a node that is told to stop hangs up at once: clients are not moved, requests under way are lost",
        [
            Edit(
                "gateway/sockets/server.py",
                "        await asyncio.wait([self._draining], timeout=self._drain_timeout)\n",
                "        self._draining.cancel()\n        await asyncio.wait([self._draining])\n"
                "        for connection in list(self.server_state.connections):\n"
                "            connection.shutdown() if isinstance(connection, SocketProtocol)"
                " else connection.transport.abort()\n",
            )
        ],
        [
            Sight(
                "tests/faults/test_stop.py"
                "::test_P4_a_shutdown_is_bounded_moves_the_healthy_with_1012_and_leaves_no_request_half_done",
                r"not enough values to unpack|1006|stored, and its sender was told nothing|assert .*silence",
            )
        ],
    ),
)
