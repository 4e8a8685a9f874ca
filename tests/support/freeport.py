"""Ports for the servers of tests. Starts none.

Taken below the range from which the kernel gives ports to outgoing connections: one that was free a moment ago is
otherwise taken by the next client that connects anywhere.
"""

from __future__ import annotations

import itertools
import os
import socket

_LOWEST, _EACH = 11_000, 4_000
_worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", "0"))) or 0) % 5
_numbers = itertools.count(os.getpid() * 37)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, different at every call for a long while."""
    while True:
        port = _LOWEST + _worker * _EACH + next(_numbers) % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
