"""Mutants of what lies between the nodes: hints that are lost for good, believed from anybody, or never forgotten."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

BUS, WIRE, STANDING = "gateway/bus/redis.py", "gateway/bus/wire.py", "gateway/presence/standing.py"
REDIS_ROWS = "tests/faults/test_redis.py"
R6 = f"{REDIS_ROWS}::test_R6_what_a_stranger_publishes_reaches_nobody_and_is_counted"

NODES = (
    Mutant(
        "resubscribe-ignored",
        "nobody looks into the log after a subscription was made anew: what was said meanwhile is missed",
        [
            Edit(
                BUS,
                """
             if channel == link.beat_channel:
                 link.beat()
-        self._again(users)
""",
            )
        ],
        [
            Sight(
                f"{REDIS_ROWS}::test_R3_clients_thrown_out_of_redis_every_second_miss_nothing[pubsub]",
                r"TimeoutError|^(AssertionError: )?I10: ",
            )
        ],
    ),
    Mutant(
        "no-slow-recheck",
        "nobody compares the log with what was told: without Redis nothing another node stored is heard",
        [
            Edit(
                "gateway/relay.py",
                """
-            await self._compare(one)  # if it cannot be asked now, the next round asks again
""",
            )
        ],
        [Sight("tests/nodes/test_nodes.py::test_without_redis_everything_still_arrives", "TimeoutError")],
    ),
    Mutant(
        "anybody-may-publish",
        "messages on the bus are not authenticated: whoever reaches Redis writes on everybody's screen",
        [
            Edit(
                WIRE,
                """
-        if not hmac.compare_digest(mac, self._mac(channel, head, body)):
+        if not mac:
             raise Refused("forged")
""",
            )
        ],
        [Sight(R6, r"'id': 'forged'|^(AssertionError: )?I[29]: ")],
    ),
    Mutant(
        "channel-not-signed",
        "a message counts on any channel: one user's notification can be played to another",
        [
            Edit(
                WIRE,
                """
     def _mac(self, channel: bytes, head: bytes, body: bytes) -> bytes:
+        channel = b""
""",
            )
        ],
        [Sight("tests/bus/test_wire.py::test_a_message_is_good_on_its_channel_only", "DID NOT RAISE")],
    ),
    Mutant(
        "bell-of-another-log",
        "in a failover, a node that has not heard of it yet sends out numbers of the new history under the old epoch",
        [
            Edit(
                WIRE,
                """
-        if elsewhen:
-            raise Refused("epoch", what)
         return Message(sender, what)
""",
            )
        ],
        [
            Sight(
                "tests/bus/test_redis_faults.py::test_what_a_node_says_of_another_log_is_looked_up_and_not_believed",
                r"ada is looked up: not within",
            )
        ],
    ),
    Mutant(
        "begins-unawares",
        "a node that begins while Redis is emptied takes for offline whom it does not find",
        [
            Edit(
                STANDING,
                """
-        settles = not others or not others <= names(answers[-1])
+        settles = not others
""",
            )
        ],
        [
            Sight(
                "tests/presence/test_nodes.py"
                "::test_what_is_lost_while_a_node_begins_is_noticed_by_the_node_that_begins",
                r"assert False is not False",
            )
        ],
    ),
    Mutant(
        "presence-for-ever",
        "the record of a node does not end by itself: the users of a killed one stay online",
        [
            Edit(
                STANDING,
                """
-            ("SET", self._key, record, "PX", _ms(self._ttl)), ("SADD", nodes, self.instance),
+            ("SET", self._key, record), ("SADD", nodes, self.instance),
""",
            ),
            Edit(
                STANDING,
                """
-                [("GET", self._key), *commands, ("SET", self._key, record, "PX", _ms(self._ttl), "XX")], within=WITHIN
+                [("GET", self._key), *commands, ("SET", self._key, record, "XX")], within=WITHIN
""",
            ),
        ],
        [
            Sight(
                "tests/presence/test_nodes.py::test_the_users_of_a_dead_node_are_gone_when_its_time_is_over",
                r"ada is online: False: not within",
            )
        ],
    ),
    Mutant(
        "failover-unnoticed",
        "after a failover of PostgreSQL the epoch stays: clients trust numbers that are given out a second time",
        [
            Edit(
                "gateway/store/postgres/history.py",
                """
-            put(connection, EPOCH, epoch)
""",
            )
        ],
        [
            Sight(
                "tests/store/test_failover.py"
                "::test_after_a_failover_the_epoch_is_another_on_every_node_and_sessions_stay",
                r"assert '\w+' != '\w+'",
            )
        ],
    ),
)
