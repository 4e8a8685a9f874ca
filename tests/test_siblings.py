"""The metrics of several workers as one text: each family once, each series once, and no ghost."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.metrics import Metrics
from gateway.siblings import Crew, merged


def exposition(connections: int, **closed: int) -> bytes:
    metrics = Metrics()
    metrics.watch(connections=lambda: connections, users=lambda: 0, bans=lambda: 0)
    for reason, count in closed.items():
        for _ in range(count):
            metrics.closed(reason)
    return metrics.exposition()


def test_a_family_is_described_once_and_its_series_stand_together_with_their_worker() -> None:
    lines = merged({1: exposition(3, draining=1), 2: exposition(5, draining=2, peer_gone=1)}).decode().splitlines()
    at = lines.index("# TYPE gateway_connections gauge")
    assert lines[at - 1].startswith("# HELP gateway_connections ")
    assert lines[at + 1 : at + 3] == ['gateway_connections{worker="1"} 3.0', 'gateway_connections{worker="2"} 5.0']
    at = lines.index("# TYPE gateway_connections_closed_total counter")
    assert lines[at + 1 : at + 4] == [
        'gateway_connections_closed_total{worker="1",reason="draining"} 1.0',
        'gateway_connections_closed_total{worker="2",reason="draining"} 2.0',
        'gateway_connections_closed_total{worker="2",reason="peer_gone"} 1.0',
    ]
    described = [line for line in lines if line.startswith("#")]
    assert len(described) == len(set(described))
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert all('{worker="' in one for one in series)


def test_of_one_that_does_not_answer_there_is_only_that() -> None:
    lines = merged({1: exposition(3), 2: None}).decode().splitlines()
    assert lines[:4] == [
        "# HELP gateway_worker_up Whether the worker answers.",
        "# TYPE gateway_worker_up gauge",
        'gateway_worker_up{worker="1"} 1',
        'gateway_worker_up{worker="2"} 0',
    ]
    assert not any('worker="2"' in line for line in lines[4:])


def test_what_stands_in_a_label_is_left_alone() -> None:
    text = b'# HELP a b c\n# TYPE a gauge\na{x="{ } \\" worker="} 1\na 2\n'
    assert merged({7: text}).decode().splitlines()[-2:] == ['a{worker="7",x="{ } \\" worker="} 1', 'a{worker="7"} 2']


@pytest.fixture
def crews(tmp_path: Path) -> list[Crew]:
    return [Crew(number, 3, tmp_path) for number in (1, 2, 3)]


async def test_whoever_is_asked_asks_all_and_the_successor_answers_for_its_place(crews: list[Crew]) -> None:
    async with crews[0].answering(lambda: b"# HELP a b\n# TYPE a gauge\na 1\n"):
        async with crews[1].answering(lambda: b"# HELP a b\n# TYPE a gauge\na 2\n"):
            for crew in crews[:2]:
                assert (await crew.exposition()).decode().splitlines()[2:] == [
                    'gateway_worker_up{worker="1"} 1', 'gateway_worker_up{worker="2"} 1',
                    'gateway_worker_up{worker="3"} 0', "# HELP a b", "# TYPE a gauge", 'a{worker="1"} 1',
                    'a{worker="2"} 2',
                ]  # fmt: skip
        assert b'gateway_worker_up{worker="2"} 0' in await crews[0].exposition()
        async with Crew(1, 3, crews[0].directory).answering(lambda: b"# HELP a b\n# TYPE a gauge\na 9\n"):
            assert b'a{worker="1"} 9' in await crews[0].exposition()


@pytest.mark.parametrize("said", [b"", b"# HELP a b\n# TYPE a gauge\na 1\n", b"\xff"])
async def test_one_that_says_half_or_stands_still_counts_as_gone_within_half_a_second(
    crews: list[Crew], said: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as half:
        half.bind(str(crews[1].directory / "2"))
        half.listen()
        half.settimeout(5)

        def say() -> None:
            peer, _ = half.accept()
            with peer:
                peer.sendall(said)

        async with crews[0].answering(lambda: b"# HELP a b\n# TYPE a gauge\na 1\n"):
            speaking = [asyncio.create_task(asyncio.to_thread(say))] if said else []
            text = await crews[0].exposition()
            await asyncio.gather(*speaking)
    assert b'gateway_worker_up{worker="2"} 0' in text
    assert b'a{worker="1"} 1' in text
    assert text.count(b'worker="2"') == 1
