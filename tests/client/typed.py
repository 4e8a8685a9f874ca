"""What somebody writes with ``gateway.client``, for mypy in strict mode: it passes, and each mistake is one. Never run.

``warn_unused_ignores`` (part of strict) turns a mistake that is not found any more into an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from gateway.client import (
    AsyncGateway,
    Gateway,
    GatewayError,
    Invalid,
    Notification,
    Push,
    Pushed,
    Receipt,
    Result,
    Stopped,
    Subscription,
)


def use(*values: object) -> None: ...


def right(gateway: Gateway) -> None:
    pushed: Pushed = gateway.push(user_id="42", title="hi", data={"order": 1}, priority="high", ttl=60)
    seq: int | None = pushed.seq
    results: Sequence[Result] = gateway.push_many(Push(user_id=id, title="hi") for id in ("1", "2"))
    words: list[str] = [result.problem.code for result in results if result.problem is not None]
    receipt: Receipt = gateway.receipt(pushed.id or "")
    read_at: datetime | None = receipt.read_at
    try:
        gateway.withdraw(receipt.id)
    except Invalid as error:
        pointers: list[str] = [wrong.pointer for wrong in error.errors]
        use(pointers, seq, words, read_at)
    except GatewayError as error:
        key: str | None = error.idempotency_key if error.unknown else None
        use(key)


async def right_on_a_loop() -> None:
    async with AsyncGateway("https://push.example.com", token="t") as gateway:
        pushed: Pushed = await gateway.push(user_ids=["1", "2"], title="hi")
        use([result.ok for result in pushed.results])
    async with Subscription("https://push.example.com", username="ada", password="pw") as subscription:
        try:
            async for one in subscription:
                shown: Notification = one
                use(shown.title.upper())
        except Stopped as end:
            use(end.bug)


def wrong(gateway: Gateway, loop: AsyncGateway) -> None:
    gateway.push(user_id="42")  # type: ignore[call-arg]
    gateway.push("42", "hi")  # type: ignore[call-arg]
    gateway.push(user_id=42, title="hi")  # type: ignore[arg-type]
    gateway.push(user_id="42", title="hi", priority="urgent")  # type: ignore[arg-type]
    gateway.push(user_id="42", title="hi", topics="t")  # type: ignore[call-arg]
    gateway.push(user_id="42", title="hi").seq + 1  # type: ignore[operator]
    gateway.push_many([{"user_id": "42", "title": "hi"}])  # type: ignore[list-item]
    _ = loop.push(user_id="42", title="hi").seq  # type: ignore[attr-defined]
    Push(user_id="42", title="hi").title = "ho"  # type: ignore[misc]
