"""REV-05: a revocation while a handshake is held between the check of its token and its registration. No race."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import held
import pytest
from websockets.exceptions import ConnectionClosed
from wire import HS256_KEYS, Node, Socket, claims_of, eventually_async


class HeldNode(Node):
    """A gateway whose handshakes stand still while ``gate`` is there."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, signing_keys=HS256_KEYS)
        self.gate = directory / "gate"

    def start(self, *, wait: bool = True) -> HeldNode:
        self.process: subprocess.Popen[bytes] | None = held.spawn(self.gate, environment=self.environment, log=self.log)
        if wait:
            self.until_ready()
        return self

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        self.waiting.unlink(missing_ok=True)
        self.gate.touch()
        try:
            yield
        finally:
            self.gate.unlink()

    @property
    def waiting(self) -> Path:
        """There, as soon as a handshake stands still."""
        return self.gate.with_suffix(".waiting")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldNode]:
    node = HeldNode(tmp_path_factory.mktemp("held")).start()
    try:
        yield node
        assert node.stop() == 0
    finally:
        node.kill()
    assert "Traceback" not in node.log_text()


async def test_REV_05_a_handshake_that_nobody_revokes_goes_on_after_the_moment(node: HeldNode) -> None:
    user = node.user()
    with node.holding():
        opening = asyncio.create_task(node.open(user.token()))
        await eventually_async(node.waiting.exists, what="the handshake stands still")
        assert node.connections(user) == [], "it is not registered"
        stored = await asyncio.to_thread(node.push, node.admin, user_id=user.id)
    assert (await (await opening).next("notification"))["id"] == stored["id"]


@pytest.mark.parametrize("aim", ["session", "jti", "user", "logout"])
async def test_REV_05_what_is_revoked_between_check_and_registration_never_delivers(node: HeldNode, aim: str) -> None:
    user = node.user()
    token = user.token()
    claims = claims_of(token)
    target = {"session": {"session": claims["sid"]}, "jti": {"jti": claims["jti"]}, "user": {"user_id": user.id}}
    with node.holding():
        opening = asyncio.create_task(node.raw(token))
        await eventually_async(node.waiting.exists, what="the handshake stands still")
        if aim == "logout":
            await asyncio.to_thread(node.request, "POST", "/auth/logout", token=token, expect=204)
        else:
            answer = await asyncio.to_thread(node.revoke, **target[aim])
            assert answer["connections_closed"] == 0, "it was not registered: nobody could find it"
        await asyncio.to_thread(node.push, node.admin, user_id=user.id)
    opened = Socket(await opening)
    with pytest.raises(ConnectionClosed) as ended:
        pytest.fail(f"it was told {(await opened.receive(within=5))['type']}")
    assert ended.value.rcvd is not None
    assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (1008, "token_revoked")
    assert node.connections(user) == []
