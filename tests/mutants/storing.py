"""Mutants of storing: what is answered 2xx without being safe, numbers that are not dense, keys that do not hold."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

APPEND, INBOX = "gateway/store/append.py", "gateway/store/inbox.py"
POSTGRES, SQLITE = "gateway/store/postgres/database.py", "gateway/store/sqlite/database.py"

STORING = (
    Mutant(
        "no-fsync",
        "SQLite with `synchronous=OFF`: a power cut takes back what was answered 2xx",
        [Edit(SQLITE, '_SYNCHRONOUS = {"full": 2,', '_SYNCHRONOUS = {"full": 0,')],
        [
            Sight(
                "tests/faults/test_disk.py::test_S4_no_201_is_written_before_its_commit_has_reached_the_disk[full]",
                r"assert \d+ == 0",
            )
        ],
    ),
    Mutant(
        "publish-before-commit",
        "the bell rings inside the transaction: devices hear what may never be stored",
        [
            Edit(
                "gateway/publish.py",
                "        self._overfull = overfull\n",
                "        self._overfull = overfull\n        inbox.early = self._early\n",
            ),
            Edit(
                "gateway/publish.py",
                "        future.add_done_callback(lambda done: self._ring(requests, done))\n",
                "",
            ),
            Edit(
                "gateway/publish.py",
                "    def pass_by(self,",
                "    def _early(self, requests, results):\n"
                "        done = asyncio.get_running_loop().create_future()\n"
                "        done.set_result(results)\n"
                "        self._ring(requests, done)\n\n"
                "    def pass_by(self,",
            ),
            Edit(
                INBOX,
                "        try:\n"
                "            return await self._database.write(\n"
                "                lambda connection: append.append_group(connection, requests,"
                " inbox_max=self._inbox_max)\n"
                "            )\n",
                "        def work(connection):\n"
                "            results = append.append_group(connection, requests, inbox_max=self._inbox_max)\n"
                "            self.early(requests, results)\n"
                "            return results\n\n"
                "        try:\n"
                "            return await self._database.write(work)\n",
            ),
        ],
        [
            Sight(
                "tests/faults/test_disk.py"
                "::test_S2_a_file_that_may_not_grow_is_503_and_never_2xx_and_heals_without_a_restart",
                r"assert .* == |pong",
            )
        ],
    ),
    Mutant(
        "number-without-row",
        "`seq` is taken and let go of before the rows are written: a reader passes a number that is on its way",
        [
            Edit(
                APPEND,
                "    last = {user_id: head - counts[user_id] for user_id, head, _ in raised}\n",
                "    if connection.dialect.name != 'sqlite':\n"
                "        connection.commit()\n"
                "    last = {user_id: head - counts[user_id] for user_id, head, _ in raised}\n",
            )
        ],
        [
            Sight(
                "tests/store/test_postgres.py::test_a_page_and_its_counters_are_one_snapshot",
                r"a number that is on its way was called a gap|assert \[.*\] == \[",
            )
        ],
    ),
    Mutant(
        "rows-before-head",
        "rows and counters of a page come from two snapshots: a live notification is told as a gap",
        [
            Edit(
                POSTGRES,
                'isolation="REPEATABLE READ", read_only=True,',
                'isolation="READ COMMITTED", read_only=True,',
            )
        ],
        [
            Sight(
                "tests/store/test_postgres.py::test_a_page_and_its_counters_are_one_snapshot",
                r"a number that is on its way was called a gap",
            ),
        ],
    ),
    Mutant(
        "key-apart",
        "the idempotency key is stored in a transaction of its own: after a crash between the two a retry is a second"
        " notification",
        [
            Edit(APPEND, "        connection.execute(_INSERT_KEYS, keys)\n", "        KEYS.extend(keys)\n"),
            Edit(APPEND, "_INSERT_KEYS = insert(idempotency)\n", "_INSERT_KEYS = insert(idempotency)\nKEYS = []\n"),
            Edit(
                INBOX,
                "        try:\n"
                "            return await self._database.write(\n"
                "                lambda connection: append.append_group(connection, requests,"
                " inbox_max=self._inbox_max)\n"
                "            )\n",
                "        try:\n"
                "            results = await self._database.write(\n"
                "                lambda connection: append.append_group(connection, requests,"
                " inbox_max=self._inbox_max)\n"
                "            )\n"
                "            if keys := append.KEYS[:]:\n"
                "                append.KEYS.clear()\n"
                "                await self._database.write(lambda c: c.execute(append._INSERT_KEYS, keys).rowcount)\n"
                "            return results\n",
            ),
        ],
        [
            Sight(
                "tests/faults/test_kill.py::test_P1_API_07_what_was_answered_survives_being_killed_at_any_moment",
                r"^(AssertionError: )?I6: ",
            )
        ],
    ),
    Mutant(
        "commit-taken-for-lost",
        "a commit whose answer is lost counts as failed and is run again: without a key it is two notifications",
        [
            Edit(
                POSTGRES,
                "case Meaning.GONE if not committing and not lost:",
                "case Meaning.GONE if not lost:",
            )
        ],
        [
            Sight(
                "tests/store/test_postgres.py::test_a_commit_whose_answer_is_lost_is_unknown_and_never_done_twice",
                r"assert 2 |DID NOT RAISE",
            )
        ],
    ),
)
