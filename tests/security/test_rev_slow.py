"""REV-03: a request whose body is on its way while its token is revoked does nothing any more. Opens no sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rawpeer import Raw
from wire import HS256_KEYS, Node, claims_of, eventually, forged, running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running(tmp_path_factory.mktemp("node"), signing_keys=HS256_KEYS) as node:
        yield node


class Begun:
    """A request whose caller has been let in, and whose body has still to come."""

    def __init__(self, node: Node, token: str, method: str, path: str, body: dict[str, Any]) -> None:
        self._body = json.dumps(body).encode()
        self._raw = Raw(node.port)
        self._raw.send(
            f"{method} {path} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self._body)}\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert self._raw.response()[0] == 100, "it is asked for the body: who sends it is settled"

    def ended(self) -> tuple[int, str]:
        """The status that answers it once its body has come, and the code of the problem, if it is one."""
        status, fields = self._raw.send(self._body).response()
        answer = json.loads(self._raw.exactly(int(fields.get("content-length", 0))) or b"{}")
        self._raw.sock.close()
        return status, str(answer.get("code", ""))


Ask = tuple[str, str, dict[str, Any]]
ASKED: dict[str, Callable[[str], Ask]] = {
    "a route that reads JSON": lambda id: ("POST", "/admin/users", {"username": f"of {id}", "password": "a long one"}),
    "a password": lambda id: ("PUT", f"/admin/users/{id}/password", {"password": "quite another one"}),
    "a push": lambda id: ("POST", "/notifications", {"user_id": id, "title": "late"}),
    "a batch": lambda id: ("POST", "/notifications/batch", {"notifications": [{"user_id": id, "title": "late"}]}),
}


@pytest.mark.parametrize("what", list(ASKED))
def test_REV_03_a_request_that_was_begun_before_it_does_nothing_after_it(node: Node, what: str) -> None:
    reader, thief = node.user(), node.user(role="admin")
    token = thief.token()
    asked = ASKED[what](reader.id)
    honest = Begun(node, node.admin, *ASKED[what](node.user().id))
    begun = Begun(node, token, *asked)
    node.revoke(session=claims_of(token)["sid"])
    assert begun.ended() == (401, "token_revoked")
    assert node.inbox(reader.token())["head"] == 0
    assert honest.ended()[0] in (200, 201, 204), "whom nobody revoked may be as slow"


def test_REV_03_nor_does_one_that_takes_longer_than_its_token(node: Node) -> None:
    reader = node.user()
    expires = int(time.time()) - 2  # the leeway is five seconds
    token = forged(node.admin, exp=expires, iat=expires - 60, nbf=expires - 60)
    begun = Begun(node, token, *ASKED["a push"](reader.id))
    eventually(lambda: node.request("GET", "/auth/me", token=token).status_code == 401, what="the token is over")
    assert begun.ended() == (401, "token_expired")
    assert node.inbox(reader.token())["head"] == 0
