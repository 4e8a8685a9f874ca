"""Who hears what on this node, and how many may."""

from __future__ import annotations

from fakes import MemoryLog, Wire, make_ties, principal

from gateway.closing import CONNECTION_LIMIT, OVERLOADED
from gateway.connection import Connection
from gateway.hub import Hub
from gateway.limits import Bucket, Buckets
from gateway.model import Ban


def hub(*, per_user: int = 3, per_address: int = 0, most: int = 100) -> Hub:
    return Hub(node="n", per_user=per_user, per_address=per_address, most=most)


def one(user: str = "ada", *, session: str = "s1", address: str | None = None) -> Connection:
    connection = Connection(principal(user, session=session), ties=make_ties(MemoryLog()), address=address, after=None)
    connection.transport = Wire()
    return connection


def test_the_first_and_the_last_connection_of_a_user_are_told_apart() -> None:
    node, first, second = hub(), one(), one()
    assert [node.attach(first), node.attach(second)] == [True, False]
    assert [node.detach(first), node.detach(second)] == [False, True]
    assert (len(node), node.users) == (0, [])


def test_a_late_goodbye_of_an_old_connection_does_not_evict_the_new_one() -> None:
    node, old, new = hub(), one(), one()
    node.attach(old)
    node.detach(old)
    node.attach(new)
    assert node.detach(old) is False
    assert (node.of("ada"), len(node)) == ((new,), 1)


def test_limits_hold_per_user_per_address_and_in_total() -> None:
    node = hub(per_user=2, per_address=3, most=4)
    for user, address in (("ada", "a"), ("ada", "a"), ("bob", "a")):
        assert node.refusal(user, address=address) is None
        node.attach(one(user, address=address))
    assert node.refusal("ada", address="b") is CONNECTION_LIMIT
    assert node.refusal("cid", address="a") is CONNECTION_LIMIT
    assert node.refusal("cid", address="b") is None
    leaving = one("cid", address="b")
    node.attach(leaving)
    assert node.refusal("dan", address="c") is OVERLOADED
    node.detach(leaving)
    assert node.refusal("dan", address="c") is None
    node.detach(node.of("bob")[0])
    assert node.refusal("cid", address="a") is None


def test_an_address_is_a_customer_of_whom_ipv6_gives_many() -> None:
    node = hub(per_address=1)
    first = one("ada", address="2001:db8::1")
    node.attach(first)
    assert node.refusal("bob", address="2001:db8::2") is CONNECTION_LIMIT
    assert node.refusal("bob", address="2001:db8:0:1::1") is None
    node.detach(first)
    assert node.refusal("bob", address="2001:db8::2") is None


def test_a_ban_finds_exactly_its_connections() -> None:
    node = hub()
    phone, laptop, other = one(session="s1"), one(session="s2"), one("bob", session="s3")
    for connection in (phone, laptop, other):
        node.attach(connection)

    def found(**ban: object) -> list[object]:
        fields = {"number": 1, "kind": "session", "subject": "", "user_id": None, "cut": None, "until": 0, "why": ""}
        return list(node.matching(Ban(**{**fields, **ban})))  # type: ignore[arg-type] # fields by name

    assert found(subject="s1", user_id="ada") == [phone]
    assert found(subject="s1") == [phone]
    assert found(kind="token", subject="j-s3") == [other]
    assert found(kind="all", cut=998_999) == []
    assert found(kind="all", cut=999_000) == [phone, laptop, other]
    assert found(kind="client", subject="c~x", cut=10**9) == []


def test_iterating_survives_what_it_sets_off() -> None:
    node = hub()
    connections = [one(f"u{n}") for n in range(5)]
    for connection in connections:
        node.attach(connection)
    for met in node:
        for each in connections:
            node.detach(each)
        assert met in connections
    assert len(node) == 0


def test_connections_are_told_of_one_user_or_of_all() -> None:
    node = hub()
    for user in ("ada", "ada", "bob"):
        node.attach(one(user))
    assert [info.user_id for info in node.connections(None)] == ["ada", "ada", "bob"]
    assert len(node.connections("ada")) == 2


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(burst=3, at=0)
    assert [bucket.take(1, rate=2, burst=3, at=0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(1, rate=2, burst=3, at=0.5) == 0
    assert bucket.take(3, rate=2, burst=3, at=100) == 0  # it never holds more than its burst
    assert bucket.take(1, rate=2, burst=3, at=100) == 0.5
    assert bucket.take(1, rate=2, burst=3, at=99) == 0.5  # a clock that steps back fills nothing
    assert bucket.take(1, rate=2, burst=3, at=100.5) == 0


def test_more_than_the_burst_is_given_once_and_paid_for() -> None:
    bucket = Bucket(burst=3, at=0)
    assert bucket.take(13, rate=2, burst=3, at=0) == 0  # ten more than there were
    assert bucket.take(1, rate=2, burst=3, at=0) == 5.5
    assert bucket.take(1, rate=2, burst=3, at=5) == 0.5
    assert bucket.take(1, rate=2, burst=3, at=5.5) == 0


def test_buckets_are_one_a_key_and_the_oldest_is_forgotten() -> None:
    buckets = Buckets(rate=1, burst=1, most=2)
    assert buckets.take("a", 1, at=0) == 0
    assert buckets.take("a", 1, at=0) > 0
    assert buckets.take("b", 1, at=0) == 0
    assert buckets.take("c", 1, at=0) == 0
    assert buckets.take("a", 1, at=0) == 0  # it had been forgotten


def test_buckets_that_are_full_again_are_forgotten_as_others_come() -> None:
    buckets = Buckets(rate=1, burst=10)
    for number in range(100):
        buckets.take(str(number), 5, at=number / 100)
    for number in range(3):
        assert buckets.take("busy", 3, at=number * 5) == 0
    for number in range(60):
        buckets.take(f"later {number}", 1, at=10.5)
    assert len(buckets._buckets) <= 61
    assert buckets.take("busy", 10, at=10.5) > 0, "it is not"
