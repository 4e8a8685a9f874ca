"""What the kernel keeps for a server's sockets, as ``ss`` of iproute2 tells it. Only the server's end is counted."""

from __future__ import annotations

import re
import shutil
import subprocess

_MEMORY = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),")


def is_missing() -> bool:
    return shutil.which("ss") is None


def bytes_of(port: int) -> int:
    """Of all connections of the server at ``port``: received and not read, queued to be sent or acknowledged, and set
    aside for both (``sk_rmem_alloc``, ``sk_wmem_queued``, ``sk_forward_alloc``)."""
    told = subprocess.run(
        ["ss", "-tmnH", "state", "established", f"( sport = :{port} )"], capture_output=True, text=True, check=True
    ).stdout
    return sum(int(part) for found in _MEMORY.finditer(told) for part in found.groups())
