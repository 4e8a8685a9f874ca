"""What a node has logged, as events; what ``serve`` says to people on the same file is passed over. No assertions."""

from __future__ import annotations

import json
from typing import Any

from wire import Node, eventually


def events(node: Node, event: str | None = None, **members: object) -> list[dict[str, Any]]:
    """The events so far; of that name and with these members, if they are given."""
    # Not splitlines, which would end a line where nobody else does.
    lines = [line for line in node.log_text().split("\n") if line.startswith("{")]
    return [one for line in lines if fits(one := json.loads(line), event, members)]


def fits(one: dict[str, Any], event: str | None, members: dict[str, object]) -> bool:
    return event in (None, one["event"]) and all(one.get(name) == value for name, value in members.items())


def logged(node: Node, event: str, **members: object) -> dict[str, Any]:
    """The newest event of that name with these members, once there is one."""
    found: list[dict[str, Any]] = eventually(lambda: events(node, event, **members), what=f"{event} {members}")
    return found[-1]
