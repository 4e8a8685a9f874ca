"""Messages as bytes: what was written is read, and whatever else comes is refused by name."""

from __future__ import annotations

import struct

import orjson
import pytest
from buses import arrived, connection
from fakes import Seconds
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.replays import MOST_STREAMS, REMEMBERED_S, WINDOW, Replays
from gateway.bus.wire import Answer, Ask, Beat, Bye, Codec, Refused, What
from gateway.epoch import Epoch
from gateway.model import Again, Arrived, Entry, MarkedRead, Passing, RevocationsChanged, Withdrawn

SECRET = bytes(range(32))


def codec(
    sender: bytes = b"sender-a", *, secret: bytes = SECRET, clock: Seconds | None = None, epoch: str = ""
) -> Codec:
    return Codec(secret, sender=sender, clock=clock or Seconds(), monotonic=clock or Seconds(), epoch=Epoch(epoch))


READER = codec(b"sender-b")
EVERYBODY, ADA = READER.everybody, READER.user("ada")

ONE_OF_EACH: list[tuple[bytes, What]] = [
    (ADA, arrived("ada", 1)),
    (ADA, Arrived("ada", Entry(2**53, "é", '"title":"\\u0000😀"', 0, 1, read_at=7))),
    (ADA, Passing(("ada",), "p", '"title":"t"', 3)),
    (EVERYBODY, Passing(None, "p", '"title":"t"', 3)),
    (ADA, MarkedRead("ada", 3, 2, ("a", "b"), None, True)),
    (ADA, MarkedRead("ada", 3, 2, (), 9, False)),
    (ADA, Withdrawn("ada", 1, 2, "id", 3)),
    (EVERYBODY, RevocationsChanged()),
    (EVERYBODY, Beat("node-1")),
    (EVERYBODY, Bye()),
    (EVERYBODY, Again(None)),
    (EVERYBODY, Again(("ada", "bob"))),
    (EVERYBODY, Ask(1, None, None, 50)),
    (EVERYBODY, Ask(1, "ada", "n-1", 50)),
    (READER.node(b"sender-b"), Answer(1, 0, 2, (connection("n-1"), connection("n-2")))),
    (READER.node(b"sender-b"), Answer(1, 1, 2, ())),
]


def refusal(reader: Codec, channel: bytes, data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        reader.decode(channel, data)
    return refused.value.reason


@pytest.mark.parametrize(("channel", "what"), ONE_OF_EACH, ids=lambda value: type(value).__name__)
def test_what_was_written_is_read(channel: bytes, what: What) -> None:
    message = codec(b"sender-b").decode(channel, codec().encode(channel, what, stream=1, number=1))
    assert (message.sender, message.what) == (b"sender-a", what)


@pytest.mark.parametrize(("channel", "what"), ONE_OF_EACH, ids=lambda value: type(value).__name__)
def test_numbers_of_another_log_are_not_believed_and_everything_else_is(channel: bytes, what: What) -> None:
    """In a failover one node learns of the new history before another; number 47 is not the same in both."""
    data = codec(epoch="before").encode(channel, what, stream=1, number=1)
    reader = codec(b"sender-b", epoch="after")
    if isinstance(what, Arrived | MarkedRead | Withdrawn):
        with pytest.raises(Refused, match="epoch") as refused:
            reader.decode(channel, data)
        assert refused.value.late == what
    else:
        assert reader.decode(channel, data).what == what


def test_an_older_gateway_says_no_epoch_and_is_believed() -> None:
    assert _signed(ADA, b'["a",1,"id","content",1,2,null]') == "read"
    assert _signed(ADA, b'["a",1,"id","content",1,2,null,"another"]') == "epoch"


@given(
    content=st.text(st.characters(exclude_categories=["Cs"])),
    seq=st.integers(0, 2**53),
    user=st.text("abcXYZ019._-", min_size=1, max_size=64),
)
def test_any_entry_survives_the_way(content: str, seq: int, user: str) -> None:
    signal = Arrived(user, Entry(seq, content, content, seq, seq))
    channel = READER.user(user)
    assert codec().decode(channel, codec().encode(channel, signal, stream=1, number=1)).what == signal


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes, channel: bytes) -> None:
    assert refusal(READER, channel, data) in ("garbage", "unknown", "forged")


@given(st.data())
def test_a_message_that_was_touched_anywhere_is_refused(data: st.DataObject) -> None:
    whole = codec().encode(ADA, arrived("ada", 1), stream=1, number=1)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(1, 255))
    touched = whole[:at] + bytes([whole[at] ^ other]) + whole[at + 1 :]
    assert refusal(codec(b"sender-b"), ADA, touched) in ("forged", "unknown")
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert refusal(codec(b"sender-b"), ADA, whole[:cut]) in ("forged", "garbage")


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**63) | st.text(max_size=3), st.lists), st.data()
)
def test_any_json_of_ours_is_a_message_or_refused(body: object, data: st.DataObject) -> None:
    """A gateway of another version may write anything, and signs it."""
    kind = data.draw(st.sampled_from("aprwvbxgqs?"))
    fields = [kind, *body] if isinstance(body, list) else body
    channel = data.draw(st.sampled_from([ADA, EVERYBODY, b"elsewhere", b"\xff"]))
    assert _signed(channel, orjson.dumps(fields)) in ("read", "malformed", "unknown", "epoch")


def _signed(channel: bytes, body: bytes) -> str:
    writer, reader = codec(), codec(b"sender-b", epoch="the log")
    head = writer.encode(channel, Bye(), stream=1, number=1)[:27]
    try:
        reader.decode(channel, head + writer._mac(channel, head, body) + body)
    except Refused as refused:
        return refused.reason
    return "read"


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b'["b","n"]', "read"),
        (b'["b","n","more",{"of":"it"}]', "read"),
        (b'["new kind",1]', "unknown"),
        (b'["b",1]', "malformed"),
        (b'["b"]', "malformed"),
        (b"[]", "malformed"),
        (b'[["b"]]', "malformed"),
        (b"{}", "malformed"),
        (b"7", "malformed"),
        (b"", "malformed"),
        (b'["a",1,"id","content",1,2,null]', "malformed"),  # a user's signal on a channel that is nobody's
        (b'["g",["ada",7]]', "malformed"),
        (b'["s",1,0,1,[["id"]]]', "malformed"),
    ],
)
def test_newer_kinds_and_members_are_passed_over_and_what_is_wrong_is_malformed(body: bytes, verdict: str) -> None:
    assert _signed(EVERYBODY, body) == verdict


def test_a_newer_version_is_unknown_not_forged() -> None:
    whole = codec().encode(ADA, Bye(), stream=1, number=1)
    assert refusal(READER, ADA, b"\x02" + whole[1:]) == "unknown"


def test_a_message_is_good_on_its_channel_only() -> None:
    whole = codec().encode(ADA, arrived("ada", 1), stream=1, number=1)
    assert refusal(READER, READER.user("bob"), whole) == "forged"
    assert refusal(READER, ADA + b"x", whole) == "forged"


def test_without_the_secret_nothing_is_believed_and_the_channels_are_others() -> None:
    stranger = codec(secret=b"x" * 32)
    assert refusal(READER, ADA, stranger.encode(ADA, arrived("ada", 1), stream=1, number=1)) == "forged"
    assert stranger.everybody != EVERYBODY


@pytest.mark.parametrize("age", [59, -59])
def test_a_message_is_believed_for_a_minute(age: float) -> None:
    clock = Seconds()
    whole = codec(clock=clock).encode(ADA, arrived("ada", 1), stream=1, number=1)
    clock.now += age
    assert codec(b"sender-b", clock=clock).decode(ADA, whole).what == arrived("ada", 1)


@pytest.mark.parametrize("age", [61, -61, 10**7])
def test_after_that_it_is_stale_and_what_it_said_is_only_something_to_look_up(age: float) -> None:
    clock = Seconds()
    whole = codec(clock=clock).encode(ADA, arrived("ada", 1), stream=1, number=1)
    clock.now += age
    reader = codec(b"sender-b", clock=clock)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            reader.decode(ADA, whole)
        assert (refused.value.reason, refused.value.late) == ("stale", arrived("ada", 1))
    assert reader._replays._streams == {}, "old messages take no memory"


def test_the_same_message_counts_once() -> None:
    reader = codec(b"sender-b")
    whole = codec().encode(ADA, arrived("ada", 1), stream=1, number=5)
    reader.decode(ADA, whole)
    assert refusal(reader, ADA, whole) == "replayed"
    reader.decode(ADA, codec().encode(ADA, arrived("ada", 1), stream=2, number=5))


def test_a_process_knows_its_own_at_a_glance() -> None:
    whole = codec().encode(ADA, Bye(), stream=1, number=1)
    assert codec().own(whole)
    assert not codec(b"sender-b").own(whole)
    assert not codec().own(b"")


def test_a_channel_of_a_user_says_whose_it_is() -> None:
    assert READER.user_of(READER.user("a.b-c_9")) == "a.b-c_9"
    assert READER.user_of(EVERYBODY) is None
    assert READER.user_of(READER.node(b"sender-b")) is None


# -- replays ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 3 * WINDOW)), max_size=300))
def test_no_number_is_new_twice(numbers: list[tuple[bytes, int]]) -> None:
    replays, seen = Replays(), set()
    for stream, number in numbers:
        if replays.new(stream, number, at=0.0):
            assert (stream, number) not in seen
            seen.add((stream, number))


def test_numbers_may_overtake_each_other_within_the_window() -> None:
    replays = Replays()
    numbers = [*range(1, 2 * WINDOW, 2), *range(WINDOW + 2, 2 * WINDOW, 2)]
    assert all(replays.new(b"a", number, at=0.0) for number in numbers)
    assert not replays.new(b"a", 1, at=0.0)


def test_processes_that_are_gone_are_forgotten_and_memory_stays_bounded() -> None:
    replays = Replays()
    replays.new(b"old", 9, at=0.0)
    replays.new(b"new", 9, at=REMEMBERED_S + 1)
    assert set(replays._streams) == {b"new"}
    for n in range(MOST_STREAMS + 10):
        assert replays.new(struct.pack(">I", n), 1, at=REMEMBERED_S + 2 + n / 1e6)
    assert len(replays._streams) == MOST_STREAMS
    assert b"new" not in replays._streams
