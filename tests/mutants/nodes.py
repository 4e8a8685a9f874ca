"""Mutants of what lies between the nodes: hints that are lost for good, believed from anybody, or never forgotten."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Sight

BUS, WIRE = "gateway/bus/redis.py", "gateway/bus/wire.py"
P2 = "tests/faults/test_nodes.py::test_P2_one_of_three_nodes_is_killed_and_its_clients_go_on_at_the_others"

NODES = (
    Mutant(
        "resubscribe-ignored",
        "nobody looks into the log after a subscription was made anew: what was said meanwhile is missed",
        [
            Edit(
                BUS,
                "        self._again(users)\n\n    def taken_away",
                "\n    def taken_away",
            )
        ],
        [
            Sight(
                "tests/bus/test_redis_faults.py::test_thrown_out_again_and_again_no_loss_goes_unnoticed",
                r"whoever missed something is named: not within",
            )
        ],
    ),
    Mutant(
        "no-slow-recheck",
        "without Redis nothing tells of what another node stored",
        [
            Edit(
                "gateway/relay.py",
                "            await self._compare(one)  # if it cannot be asked now, the next round asks again\n",
                "",
            )
        ],
        [Sight("tests/nodes/test_nodes.py::test_without_redis_everything_still_arrives", r"TimeoutError")],
    ),
    Mutant(
        "anybody-may-publish",
        "messages on the bus are not authenticated: whoever reaches Redis writes on everybody's screen",
        [
            Edit(
                WIRE,
                "        if not hmac.compare_digest(mac, self._mac(channel, head, body)):\n",
                "        if not mac:\n",
            )
        ],
        [
            Sight(
                "tests/bus/test_redis_faults.py::test_what_a_stranger_publishes_is_refused_and_counted",
                r"assert .*\{6",
            )
        ],
    ),
    Mutant(
        "channel-not-signed",
        "a message counts on any channel: one user's notification can be played to another",
        [
            Edit(WIRE, "self._mac(channel, head, body)):\n", "self._mac(b'', head, body)):\n"),
            Edit(
                WIRE,
                "        return head + self._mac(channel, head, body) + body\n",
                "        return head + self._mac(b'', head, body) + body\n",
            ),
        ],
        [Sight("tests/bus/test_wire.py::test_a_message_is_good_on_its_channel_only", r"DID NOT RAISE")],
    ),
    Mutant(
        "presence-for-ever",
        "the record of a node does not end by itself: the users of a killed one stay online for ever",
        [
            Edit(
                "gateway/presence/standing.py",
                '            ("SET", self._key, record, "PX", _ms(self._ttl)),\n',
                '            ("SET", self._key, record),\n',
            ),
            Edit(
                "gateway/presence/standing.py",
                '("SET", self._key, record, "PX", _ms(self._ttl), "XX")], within=WITHIN\n            )\n        except',
                '("SET", self._key, record, "XX")], within=WITHIN\n            )\n        except',
            ),
        ],
        [
            Sight(
                "tests/presence/test_nodes.py::test_the_users_of_a_dead_node_are_gone_when_its_time_is_over",
                r"not within",
            )
        ],
    ),
    Mutant(
        "failover-unnoticed",
        "after a failover of PostgreSQL the epoch stays: clients trust numbers that are given out a second time",
        [
            Edit(
                "gateway/store/postgres/history.py",
                "            put(connection, EPOCH, epoch)\n",
                "",
            )
        ],
        [
            Sight(
                "tests/store/test_failover.py"
                "::test_after_a_failover_the_epoch_is_another_on_every_node_and_sessions_stay",
                r"not within|assert .* != ",
            )
        ],
    ),
)
