"""Ids: different ones wherever they are made, and their time in front."""

from __future__ import annotations

import os
import threading

from gateway.model import new_id


def test_an_id_begins_with_its_time_and_is_opaque_hexadecimal() -> None:
    id = new_id(1_700_000_000.123)
    assert id[:12] == f"{1_700_000_000_123:012x}"
    assert len(id) == 32
    assert set(id) <= set("0123456789abcdef")
    assert new_id()[:4] == f"{int(new_id()[:12], 16):012x}"[:4]


def test_threads_get_different_ones() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([new_id(1.0) for _ in range(3000)])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) == 18_000


def test_a_forked_process_gets_different_ones() -> None:
    new_id(1.0)  # there are spare ones
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, "".join(new_id(1.0) for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 3200).decode()
    theirs = {told[at : at + 32] for at in range(0, 3200, 32)}
    ours = {new_id(1.0) for _ in range(300)}
    assert len(theirs) == 100
    assert not theirs & ours
