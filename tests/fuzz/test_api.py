"""The HTTP interface against its OpenAPI document: whatever is asked, by whomever, the answer is one of those it names,
and an error has one of the codes it names.

schemathesis draws requests that fit the document and requests that do not; half of the ids are ones that exist. The
admin who asks must stay one: what would end its session or take its password is asked with another's token.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from wire import Node, claims_of, eventually, running

from gateway.app import create_app
from gateway.settings import read_settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 10)
"""Requests per operation."""
CHECKS: Any = [
    status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
]  # fmt: skip
LONG = 86_400


def named() -> dict[str, Any]:
    """The document without the answer that stands for all that it does not name: with it every status would do."""
    document = create_app(read_settings({})).openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            del operation["responses"]["default"]
    return document


SCHEMA = schemathesis.openapi.from_dict(named())
FOUND: list[Any] = [one.ok() for one in cast("Any", SCHEMA.get_all_operations())]
OPERATIONS = {f"{one.method.upper()} {one.path}": one for one in FOUND}

ENDS_ITSELF = ("POST /auth/logout", "PUT /auth/password", "DELETE /auth/sessions/{sid}", "POST /auth/ticket")
"""What is done to the caller's own session, or by way of it: asked by people who are not needed again."""

ENDLESS = ("GET /events",)
"""Asked by those who are refused: to others the answer has no end."""


@dataclass
class World:
    """A gateway with people and services in it, some of whom may come to harm."""

    node: Node
    tokens: dict[str, str | None]
    spare: dict[str, str | None]
    ids: dict[str, list[str]] = field(default_factory=dict)
    done: int = 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(
        tmp_path_factory.mktemp("api"), log_level="info", access_token_ttl=LONG, login_failures=0,
        allowed_origins="https://app.example",
    ) as node:  # fmt: skip
        client, harmed = node.client(), [node.client() for _ in range(3)]
        users = [node.user() for _ in range(4)]
        second = node.user(role="admin")
        tokens = {"admin": node.admin, "user": users[0].token(), "client": node.client_token(client), "nobody": None}
        spare = {**tokens, "admin": second.token(), "user": users[1].token()}
        sent = [node.push(tokens["client"] or "", user_id=user.id)["id"] for user in users[:2] for _ in range(5)]
        sessions = [str(claims_of(users[2].token())["sid"]) for _ in range(3)]
        world = World(node, tokens, spare)
        world.ids = {
            "user_id": [one.id for one in users[1:]], "client_id": [one for one, _ in harmed], "sid": sessions,
            "notification": sent, "epoch": [node.inbox(tokens["user"] or "")["epoch"]],
        }  # fmt: skip
        yield world
        # Nobody could end the admin who asked, and what is under way comes to its end.
        eventually(lambda: node.request("GET", "/readyz").status_code == 200, what="ready at the end")
        node.request("GET", "/admin/users", token=node.admin, expect=200)


def made_known(case: Any, world: World, rng: random.Random) -> None:
    """Half of the ids in it become ones that exist."""
    kind = "user_id" if case.path.startswith("/admin/users") else "notification"
    for name in case.path_parameters or {}:
        if rng.random() < 0.5:
            case.path_parameters[name] = rng.choice(world.ids[kind if name == "id" else name])
    if "user_id" in (case.query or {}) and rng.random() < 0.5:
        case.query["user_id"] = rng.choice(world.ids["user_id"])
    body = case.body if isinstance(case.body, dict) else {}
    many = body.get("notifications")
    for item in [body, *[one for one in (many if isinstance(many, list) else ()) if isinstance(one, dict)]]:
        for name in ("user_id", "client_id", "epoch"):
            if name in item and rng.random() < 0.5:
                item[name] = rng.choice(world.ids[name])
        if isinstance(item.get("ids"), list) and item["ids"] and rng.random() < 0.5:
            item["ids"] = rng.sample(world.ids["notification"], 2)


def harmless(case: Any, world: World) -> bool:
    """Whether it leaves those alone who go on asking."""
    body = case.body if isinstance(case.body, dict) else {}
    if "/admin/revocations" in case.path:
        mine = {str(value) for token in world.tokens.values() if token for value in claims_of(token).values()}
        return not {str(value) for value in body.values()} & mine
    return True


def late(answer: Any) -> bool:
    """The one 503 that a gateway may answer here: news of revocations is late (contract 8)."""
    return bool(answer.status_code == 503 and answer.json()["code"] == "revocations_stale")


def codes(name: str, status: int) -> set[str]:
    """Those that the document names for this status of this operation."""
    method, path = name.split()
    answer = SCHEMA.raw_schema["paths"][path][method.lower()]["responses"][str(status)]
    return set(answer["content"]["application/problem+json"]["examples"])


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_every_answer_is_one_that_the_document_names(world: World, name: str) -> None:
    operation, node = OPERATIONS[name], world.node
    chosen = int(os.environ.get("FUZZ_SEED") or 0)
    tokens = world.spare if name in ENDS_ITSELF else world.tokens
    if name in ENDLESS:
        tokens = {who: tokens[who] for who in ("client", "nobody")}
    modes = st.sampled_from(GenerationMode).flatmap(lambda mode: operation.as_strategy(generation_mode=mode))

    @seed(chosen)
    @settings(
        max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,), print_blob=False,
    )  # fmt: skip
    @given(case=modes, who=st.sampled_from(sorted(tokens)), rng=st.randoms(use_true_random=False))
    def ask(case: Any, who: str, rng: random.Random) -> None:
        made_known(case, world, rng)
        if not harmless(case, world):
            return
        token = tokens[who]
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = case.call(base_url=node.url, headers=headers, timeout=30)
        if late(answer):  # a machine that lets nobody run for a second: documented, and over soon
            eventually(lambda: node.request("GET", "/readyz").status_code == 200, what="ready again")
            answer = case.call(base_url=node.url, headers=headers, timeout=30)
        world.done += 1
        if not late(answer):
            assert answer.status_code < 500, f"FUZZ_SEED={chosen} {who}: {answer.status_code} {answer.content[:500]!r}"
        case.validate_response(answer, checks=CHECKS)
        if answer.headers.get("content-type") == ["application/problem+json"]:
            code = answer.json()["code"]
            assert code in codes(name, answer.status_code), f"FUZZ_SEED={chosen} {who}: {code} is not in the document"

    ask()
