"""Mutants of storing: what is answered 2xx without being safe, numbers that are not dense, keys that do not hold."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

APPEND, INBOX = "gateway/store/append.py", "gateway/store/inbox.py"
POSTGRES, SQLITE = "gateway/store/postgres/database.py", "gateway/store/sqlite/database.py"
DISK, PG_ROWS, PG_STORE = "tests/faults/test_disk.py", "tests/faults/test_postgres.py", "tests/store/test_postgres.py"

STORING = (
    Mutant(
        "no-fsync",
        "SQLite with `synchronous=OFF`: a power cut takes back what was answered 2xx",
        [
            Edit(
                SQLITE,
                """
-_SYNCHRONOUS = {"full": 2, "relaxed": 1}
+_SYNCHRONOUS = {"full": 0, "relaxed": 0}
""",
            )
        ],
        [Sight(f"{DISK}::test_S4_no_201_is_written_before_its_commit_has_reached_the_disk[full]", r"assert \d+ == 0")],
    ),
    Mutant(
        "commit-without-waiting",
        "PostgreSQL with `synchronous_commit=off`: a crash of the server takes back what was answered 2xx",
        [
            Edit(
                POSTGRES,
                """
     if durability == "relaxed":
         return False
-    return True if server == "off" else None
+    return False
""",
            )
        ],
        [
            Sight(
                f"{PG_ROWS}::test_G1_I12_a_killed_server_is_503_at_once_silence_when_stale_and_forgotten_when_it_is_back"
                "[2s]",
                r"^(AssertionError: )?I[14]: ",
            )
        ],
    ),
    Mutant(
        "publish-before-commit",
        "the bell rings inside the transaction: devices hear what may never be stored",
        [
            Edit(
                "gateway/publish.py",
                """
         self._overfull = overfull
+        inbox.early = self._early
+        self._loop = asyncio.get_running_loop()
+
+    def _early(self, requests, results):
+        def ring():
+            done = self._loop.create_future()
+            done.set_result(results)
+            self._ring(requests, done)
+
+        self._loop.call_soon_threadsafe(ring)
""",
            ),
            Edit(
                "gateway/publish.py",
                """
         future = asyncio.ensure_future(self._inbox.append_all(requests))
-        future.add_done_callback(lambda done: self._ring(requests, done))
""",
            ),
            Edit(
                INBOX,
                """
     async def _append(self, requests: list[Append]) -> Sequence[Appended | BaseException]:
+        def work(connection):
+            results = append.append_group(connection, requests, inbox_max=self._inbox_max)
+            self.early(requests, results)
+            return results
+
         try:
-            return await self._database.write(
-                lambda connection: append.append_group(connection, requests, inbox_max=self._inbox_max), grouped=True
-            )
+            return await self._database.write(work, grouped=True)
""",
            ),
        ],
        [
            Sight(
                f"{DISK}::test_S2_a_file_that_may_not_grow_is_503_and_never_2xx_and_heals_without_a_restart",
                r"^AssertionError: \{'type': 'notification', 'seq': \d+",
            ),
            Sight(
                f"{PG_ROWS}::test_G5_I6_a_lost_commit_is_503_and_the_key_makes_it_exactly_one"
                "[before the server sees it]",
                r"^(AssertionError: )?I4: ",
            ),
        ],
    ),
    Mutant(
        "number-without-row",
        "`seq` is taken, and the user's row let go of, before the notification is written: a reader passes a number"
        " that is on its way",
        [
            Edit(
                APPEND,
                """
     raised = connection.execute(_RAISE_HEADS, {"counts": packed(sorted(counts.items()))}).all()
+    if connection.dialect.name != "sqlite":
+        connection.commit()
""",
            )
        ],
        [
            Sight(
                f"{PG_ROWS}::test_G6_I3_a_reader_never_skips_a_number_whose_commit_is_late",
                r"^(AssertionError: )?(I3: .* a gap over|somebody waits for transactionid|assert \(\[\], [12]\) == )",
            ),
            Sight(
                f"{PG_STORE}::test_a_page_and_its_counters_are_one_snapshot",
                r"a number that is on its way was called a gap",
            ),
        ],
    ),
    Mutant(
        "rows-before-head",
        "rows and counters of a page come from two snapshots: a live notification is told as a gap",
        [
            Edit(
                POSTGRES,
                """
-            parsed, size=max(1, connections - writers), isolation="REPEATABLE READ", read_only=True,
+            parsed, size=max(1, connections - writers), isolation="READ COMMITTED", read_only=True,
""",
            )
        ],
        [
            Sight(
                f"{PG_STORE}::test_a_page_and_its_counters_are_one_snapshot",
                r"a number that is on its way was called a gap",
            ),
        ],
    ),
    Mutant(
        "key-apart",
        "the idempotency key is stored in a transaction of its own: after a crash between the two a retry is a second"
        " notification",
        [
            Edit(
                APPEND,
                """
-        connection.execute(_INSERT_KEYS, keys)
+        KEYS.extend(keys)
""",
            ),
            Edit(
                APPEND,
                """
 _INSERT_KEYS = insert(idempotency)
+KEYS = []
""",
            ),
            Edit(
                INBOX,
                """
         try:
-            return await self._database.write(
+            results = await self._database.write(
                 lambda connection: append.append_group(connection, requests, inbox_max=self._inbox_max), grouped=True
             )
+            if keys := append.KEYS[:]:
+                append.KEYS.clear()
+                await self._database.write(lambda c: c.execute(append._INSERT_KEYS, keys).rowcount)
+            return results
""",
            ),
        ],
        [
            Sight(
                "tests/faults/test_kill.py::test_P1_API_07_what_was_answered_survives_being_killed_at_any_moment",
                r"^(AssertionError: )?I6: ",
            ),
            Sight(
                "tests/security/test_api_crash.py"
                "::test_API_07_killed_around_the_commit_a_retry_with_the_key_makes_it_exactly_one",
                r"assert None == 'true'",
            ),
        ],
    ),
    Mutant(
        "commit-taken-for-lost",
        "a commit whose answer is lost counts as failed and is run again: without a key it is two notifications",
        [
            Edit(
                POSTGRES,
                """
-                    case Meaning.GONE if not committing and not lost:
+                    case Meaning.GONE if not lost:
""",
            )
        ],
        [
            Sight(
                f"{PG_STORE}::test_a_commit_whose_answer_is_lost_is_unknown_and_is_not_done_twice",
                r"DID NOT RAISE|assert 2 ",
            )
        ],
    ),
    Mutant(
        "retry-without-bell",
        "what was stored though 503 was said is announced by nobody: its devices wait for the slow re-check",
        [
            Edit(
                "gateway/publish.py",
                """
-        if replayed:
+        if None in replayed:
""",
            )
        ],
        [
            Sight(
                f"{PG_ROWS}::test_G5_I10_what_was_stored_though_503_was_said_arrives_with_the_retry",
                r"TimeoutError",
            )
        ],
    ),
    Mutant(
        "always-ready",
        "`/readyz` is green whatever is broken: the balancer keeps sending to a node that can do nothing",
        [
            Edit(
                "gateway/opening.py",
                """
         async def unready() -> list[str]:
+            return []
             reasons = [] if revoker.fresh else ["revocations are stale"]
""",
            )
        ],
        [
            Sight(
                f"{PG_ROWS}::test_G1_I12_a_killed_server_is_503_at_once_silence_when_stale_and_forgotten_when_it_is_back"
                "[2s]",
                r"assert 200 == 503|^(AssertionError: )?I12: ",
            )
        ],
    ),
)
