"""The OpenAPI document says of every operation who may call it and what can come back, in the limits the code keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from gateway.api import pushes
from gateway.api.openapi import document
from gateway.api.push_schemas import EXAMPLE, ITEM, PUSH_BODY

PUBLIC = {
    ("/auth/login", "post"),
    ("/auth/refresh", "post"),
    ("/auth/token", "post"),
    ("/auth/revoke", "post"),
    ("/.well-known/jwks.json", "get"),
    ("/healthz", "get"),
    ("/readyz", "get"),
}
CONTRACT = """
POST /auth/login · POST /auth/token · POST /auth/refresh · POST /auth/logout · GET /auth/me · GET /auth/sessions
POST /auth/revoke · POST /auth/introspect · DELETE /auth/sessions/{sid} · PUT /auth/password
GET /.well-known/jwks.json
POST /notifications · POST /notifications/batch · GET /notifications/{id} · DELETE /notifications/{id}
GET /inbox · GET /inbox/{id} · DELETE /inbox/{id} · POST /inbox/read · POST /inbox/ack
GET /admin/users · POST /admin/users · GET /admin/users/{id} · PATCH /admin/users/{id} · DELETE /admin/users/{id}
PUT /admin/users/{id}/password · GET /admin/clients · POST /admin/clients · DELETE /admin/clients/{client_id}
POST /admin/clients/{client_id}/rotate · POST /admin/revocations · GET /admin/revocations · GET /admin/sessions
GET /admin/connections · GET /admin/presence · GET /admin/presence/summary · GET /admin/audit · GET /healthz ·
GET /readyz · GET /metrics · POST /auth/ticket · GET /events
"""


@pytest.fixture
def made(app: FastAPI) -> dict[str, Any]:
    return document(app)


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in made["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_it_has_the_operations_of_the_contract_and_no_others(made: dict[str, Any]) -> None:
    promised = {line.strip() for line in CONTRACT.replace("\n", "·").split("·") if line.strip()}
    assert {f"{method.upper()} {path}" for path, method, _ in operations(made)} == promised


def test_every_operation_has_a_summary_a_tag_and_its_problems(made: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in made["tags"]}
    for path, method, operation in operations(made):
        assert operation["summary"], path
        assert set(operation["tags"]) <= tags, path
        assert operation["responses"]["default"]["content"].keys() == {"application/problem+json"}, path
        assert any(status.startswith("2") for status in operation["responses"]), path
        if "requestBody" in operation:
            assert {"413", "415", "422"} <= operation["responses"].keys(), (path, method)


def test_every_operation_but_the_public_ones_asks_for_a_token(made: dict[str, Any]) -> None:
    assert {(path, method) for path, method, one in operations(made) if "security" not in one} == PUBLIC
    for path, _, operation in operations(made):
        for scheme in operation.get("security", ()):
            assert scheme.keys() <= made["components"]["securitySchemes"].keys(), path
            if path.startswith("/admin/") and "oauth2" in scheme:
                assert scheme["oauth2"] == ["admin"], path


def test_the_interactive_page_signs_in_at_the_token_endpoint(made: dict[str, Any]) -> None:
    flows = made["components"]["securitySchemes"]["oauth2"]["flows"]
    assert flows["password"]["tokenUrl"] == flows["clientCredentials"]["tokenUrl"] == "/auth/token"


def test_every_reference_leads_somewhere(made: dict[str, Any]) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for one in node.values():
                yield from references(one)
        elif isinstance(node, list):
            for one in node:
                yield from references(one)

    found = set(references(made))
    assert {one.rpartition("/")[2] for one in found} <= made["components"]["schemas"].keys()
    assert "#/components/schemas/Problem" in found


def test_the_members_of_a_push_are_those_that_are_read() -> None:
    assert PUSH_BODY["properties"].keys() == pushes._FIELDS
    assert ITEM["properties"].keys() == pushes._ITEM_FIELDS


def test_the_example_is_a_push_and_an_item() -> None:
    assert pushes.read_push(EXAMPLE, key=None).recipients == ("42",)
    assert pushes.read_item(EXAMPLE).ttl == 86_400


def test_it_is_made_once(app: FastAPI) -> None:
    assert document(app) is document(app) is app.openapi()
