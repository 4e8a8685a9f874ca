"""``docs/clients/python.md`` can be pasted: every ``python`` block is run as it stands, and prints what the paper says.

The blocks are run one after the other in one module. The one that listens is ended as the paper tells: by a revocation.
"""

from __future__ import annotations

import operator
import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from wire import Node, eventually

PAPER = Path(__file__).resolve().parents[2] / "docs" / "clients" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def test_what_the_paper_shows_is_what_happens(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = {"id": "42", "username": "alice", "password": "correct horse 42"}
    node.request("POST", "/admin/users", token=node.admin, json=alice, expect=201)
    id, secret = node.client()
    for name, value in {"URL": node.url, "CLIENT_ID": id, "CLIENT_SECRET": secret}.items():
        monkeypatch.setenv(f"NOTIFY_{name}", value)
    blocks = BLOCK.findall(PAPER.read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    printed: list[str] = []

    def show(*words: object) -> None:
        printed.append(" ".join(map(str, words)))

    names: dict[str, Any] = {"print": show, "__name__": "paper"}
    for code, expected in blocks:
        printed.clear()
        run = partial(exec, compile(code, str(PAPER), "exec"), names)
        if "Subscription(" not in code:
            run()
        else:
            thread = threading.Thread(target=run)
            thread.start()
            before = expected.splitlines()[:-1]
            eventually(partial(operator.eq, printed, before), what=f"{before}, not {printed}")
            node.revoke(user_id="42")
            thread.join(20)
        assert printed == expected.splitlines()
    names["gateway"].close()
