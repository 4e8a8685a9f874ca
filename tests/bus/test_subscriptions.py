"""Whatever is wanted and given up in whatever order: the server ends up with what is wanted, and each is told of."""

from __future__ import annotations

import random

import pytest

from gateway.bus.subscriptions import UNDER_WAY, Subscriptions


class Answering:
    """The server's half: it does what it is asked in order, and its answers are on their way for a while."""

    def __init__(self) -> None:
        self.has: set[bytes] = set()
        self.answers: list[tuple[bool, bytes]] = []

    def asked(self, subscribe: list[bytes], unsubscribe: list[bytes]) -> None:
        self.has |= set(subscribe)
        self.has -= set(unsubscribe)
        self.answers += [(True, channel) for channel in subscribe] + [(False, channel) for channel in unsubscribe]


def test_what_is_wanted_is_asked_for_once_and_named_when_it_is_heard() -> None:
    subscriptions = Subscriptions()
    assert not subscriptions.want(b"a")
    assert not subscriptions.want(b"a")
    assert subscriptions.next() == ([b"a"], [])
    assert subscriptions.next() == ([], [])
    assert subscriptions.confirmed(b"a")
    assert subscriptions.want(b"a"), "it is heard already"


def test_who_comes_back_before_it_was_asked_stays_subscribed() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(b"a")
    subscriptions.next()
    subscriptions.confirmed(b"a")
    subscriptions.unwant(b"a")
    assert subscriptions.want(b"a")
    assert subscriptions.next() == ([], [])


def test_who_comes_back_while_the_goodbye_is_on_its_way_is_subscribed_anew_and_named_again() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(b"a")
    subscriptions.next()
    subscriptions.confirmed(b"a")
    subscriptions.unwant(b"a")
    assert subscriptions.next() == ([], [b"a"])
    assert not subscriptions.want(b"a")
    assert subscriptions.next() == ([b"a"], [])
    assert not subscriptions.left(b"a")
    assert subscriptions.confirmed(b"a")


def test_who_was_never_asked_for_is_forgotten_without_a_word() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(b"a")
    subscriptions.unwant(b"a")
    assert subscriptions.next() == ([], [])
    assert subscriptions._state == {}


def test_only_so_many_are_under_way_and_the_rest_follows() -> None:
    subscriptions = Subscriptions()
    channels = [b"%d" % n for n in range(UNDER_WAY + 1)]
    for channel in channels:
        subscriptions.want(channel)
    assert subscriptions.next() == (channels[:-1], [])
    assert subscriptions.next() == ([], [])
    subscriptions.confirmed(channels[0])
    assert subscriptions.next() == (channels[-1:], [])


def test_a_new_connection_begins_with_nothing_and_asks_for_all_that_is_wanted() -> None:
    subscriptions = Subscriptions()
    for channel in (b"a", b"b", b"c"):
        subscriptions.want(channel)
    subscriptions.next()
    subscriptions.confirmed(b"a")
    subscriptions.unwant(b"b")
    subscriptions.begin()
    assert subscriptions.next() == ([b"a", b"c"], [])
    assert subscriptions.confirmed(b"a")
    assert len(subscriptions) == 2


def test_a_goodbye_that_the_old_connection_took_along_is_not_waited_for() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(b"a")
    subscriptions.next()
    subscriptions.confirmed(b"a")
    subscriptions.unwant(b"a")
    subscriptions.next()
    subscriptions.begin()
    subscriptions.want(b"a")
    subscriptions.next()
    subscriptions.confirmed(b"a")
    assert subscriptions.left(b"a"), "nobody asked for that on this connection"


def test_a_channel_the_server_takes_away_is_not_asked_for_again_by_itself() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(b"a")
    subscriptions.next()
    subscriptions.confirmed(b"a")
    assert subscriptions.left(b"a")
    assert subscriptions.next() == ([], [])
    assert not subscriptions.want(b"a")
    assert subscriptions.next() == ([b"a"], [])


def test_an_answer_about_a_channel_nobody_knows_is_no_news() -> None:
    subscriptions = Subscriptions()
    assert not subscriptions.confirmed(b"x")
    assert not subscriptions.left(b"x")


@pytest.mark.parametrize("seed", range(40))
def test_in_any_order_the_server_ends_up_with_what_is_wanted(seed: int) -> None:
    dice = random.Random(seed)
    subscriptions, server = Subscriptions(), Answering()
    channels = [b"%d" % n for n in range(6)]
    wanted: set[bytes] = set()
    waiting: set[bytes] = set()  # wanted, and not named since
    for _ in range(300):
        action, channel = dice.random(), dice.choice(channels)
        if action < 0.3 and channel not in wanted:
            wanted.add(channel)
            if not subscriptions.want(channel):
                waiting.add(channel)
        elif action < 0.55 and channel in wanted:
            wanted.discard(channel)
            waiting.discard(channel)
            subscriptions.unwant(channel)
        elif action < 0.75:
            server.asked(*subscriptions.next())
        elif action < 0.98:
            for _ in range(dice.randrange(4)):
                _answer(server, subscriptions, waiting)
        else:
            server = Answering()
            subscriptions.begin()
            waiting = set(wanted)
    while True:
        server.asked(*subscriptions.next())
        if not server.answers:
            break
        _answer(server, subscriptions, waiting)
    assert server.has == wanted
    assert waiting == set()
    assert subscriptions._under_way == 0
    assert set(subscriptions._state) == wanted


def _answer(server: Answering, subscriptions: Subscriptions, waiting: set[bytes]) -> None:
    if not server.answers:
        return
    here, channel = server.answers.pop(0)
    if here:
        if subscriptions.confirmed(channel):
            waiting.discard(channel)
    else:
        assert not subscriptions.left(channel)
