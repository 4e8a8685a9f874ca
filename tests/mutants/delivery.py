"""Mutants of delivery: what is acknowledged for a client, told twice or not at all, or written to who does not read."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

TELLING, FEED, PROTOCOL = "gateway/telling.py", "gateway/feed.py", "gateway/sockets/protocol.py"
P2 = "tests/faults/test_nodes.py::test_P2_one_of_three_nodes_is_killed_and_its_clients_go_on_at_the_others"
P3 = (
    "tests/faults/test_pauses.py"
    "::test_P3_a_node_that_stood_still_under_load_goes_on_and_tells_nothing_to_who_was_revoked_meanwhile"
)
I3 = r"^(AssertionError: )?I3: .* after "

DELIVERY = (
    Mutant(
        "advance-on-send",
        "what was written to a socket counts as acknowledged: what a dead client never read is gone",
        [
            Edit(
                TELLING,
                """
     def _write(self, frame: Frame) -> None:
         payload = self.transport.encode(frame)
+        if b'"type":"notification","seq":' in frame.json:
+            seq = int(frame.json.partition(b'"seq":')[2].partition(b",")[0])
+            ack = self.ties.inbox.ack(
+                self.claims.subject, session=self.claims.session or "", seq=seq, now=millis(self.ties.clock())
+            )
+            asyncio.ensure_future(ack)
""",
            )
        ],
        [Sight(P3, r"^(AssertionError: )?I7: .* the cursor is|^(AssertionError: )?I1: .* never reached")],
    ),
    Mutant(
        "ack-moves-back",
        "an ack is stored as it comes: an older one moves the cursor back",
        [
            Edit(
                "gateway/store/marking.py",
                """
-        if ack.seq > cursors.get(ack.session, row.cursor):
+        if ack.seq:
             cursors[ack.session] = ack.seq
""",
            )
        ],
        [
            Sight("tests/contracts/test_store_inbox.py::test_a_cursor_never_moves_back", r"assert \d == 7"),
            Sight(
                "tests/faults/test_clients.py"
                "::test_N10_acknowledgements_lost_doubled_and_late_never_move_a_cursor_back",
                r"^(AssertionError: )?I7: ",
            ),
        ],
    ),
    Mutant(
        "gap-untold",
        "what left the inbox is passed over in silence: a client waits for ever, or believes that it has all",
        [
            Edit(
                FEED,
                """
                 missing = Gap(self.after + 1, entry.seq - 1)
                 self.after = missing.last
-                yield missing
""",
            ),
            Edit(
                FEED,
                """
             missing = Gap(self.after + 1, page.upto)
             self.after = missing.last
-            yield missing
""",
            ),
        ],
        [
            Sight(P3, f"{I3}|every device has come back and was told everything: not within"),
            Sight(
                "tests/wire/test_promise.py::test_beyond_the_inbox_limit_the_oldest_fall_out_and_are_told_with_a_gap",
                r"^AssertionError: \{'type': 'notification'",
            ),
        ],
    ),
    Mutant(
        "live-beside-replay",
        "a live notification is written while older ones are still being read: out of order, and twice",
        [
            Edit(
                FEED,
                """
-        if not self.behind and seq == self.after + 1:
-            self.after = seq
+        if self.behind or seq == self.after + 1:
+            self.after = self.after if self.behind else seq
             return Verdict.WRITE
""",
            )
        ],
        [Sight(P2, I3)],
    ),
    Mutant(
        "foreign-epoch-trusted",
        "a number kept from another history of the log is trusted after a restore: notifications are passed over",
        [
            Edit(
                TELLING,
                """
-        trusted = kept is not None and kept[1] == ties.epoch.current and kept[0] <= state.head
+        trusted = kept is not None and kept[0] <= state.head
""",
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
        "rung-before-hello",
        "what is committed while a socket opens is not looked for: it comes with the next one, or in twenty seconds",
        [
            Edit(
                TELLING,
                """
-            if self._rung:
+            if not self.number:
                 return False  # what rang was committed while the opening was on its way, and may not be in it
""",
            )
        ],
        [
            # With the database on a thread the moment is too short for N13 to meet it by chance.
            Sight(
                "tests/test_connection.py::test_what_is_committed_while_the_opening_is_on_its_way_is_told_too",
                r"assert \[\] == \[1, 2, 3\]",
            )
        ],
    ),
    Mutant(
        "writes-to-who-stalls",
        "the frames of a reader that has stalled are kept in memory: a few of them take the node down",
        [
            Edit(
                PROTOCOL,
                """
-        return not self._paused and self._state <= _OPEN
+        return self._state <= _OPEN
""",
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
        "a node that is told to stop hangs up at once: nobody is told when to come back, requests under way are lost",
        [
            Edit(
                "gateway/sockets/server.py",
                """
         self._draining = asyncio.create_task(self._drained(), name="drain")
-        await asyncio.wait([self._draining], timeout=self._drain_timeout)
+        self._draining.cancel()
+        for connection in list(self.server_state.connections):
+            connection.shutdown() if isinstance(connection, SocketProtocol) else connection.transport.abort()
""",
            )
        ],
        [
            Sight(
                "tests/faults/test_stop.py"
                "::test_P4_a_shutdown_is_bounded_moves_the_healthy_with_1012_and_leaves_no_request_half_done",
                r"expected 1, got 0|stored, and its sender was told nothing",
            )
        ],
    ),
)
