"""The OpenAPI document says of every operation who may call it and what can come back, in the limits the code keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI

from gateway.api import pushes
from gateway.api.examples import ANSWERS, BODIES
from gateway.api.openapi import document
from gateway.api.push_schemas import EXAMPLE, ITEM, PUSH_BODY
from gateway.api.refusals import ANYWHERE

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
            assert {"413", "415"} <= operation["responses"].keys(), (path, method)


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
    for one in found:
        _, _, kind, name = one.split("/")
        assert name in made["components"][kind], one
    assert "#/components/schemas/Problem" in found


def fits(made: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with ``value``, by a schema of the document."""
    validator = jsonschema_rs.Draft202012Validator(schema | {"components": made["components"]}, validate_formats=True)
    return [error.message for error in validator.iter_errors(value)]


def test_every_body_and_every_answer_has_an_example_that_fits_its_schema(made: dict[str, Any]) -> None:
    wrong: list[str] = []
    for path, method, operation in operations(made):
        holders = {"body": operation["requestBody"]} if "requestBody" in operation else {}
        holders |= {status: one for status, one in operation["responses"].items() if status.startswith("2")}
        for what, holder in holders.items():
            for kind, content in holder.get("content", {}).items():
                where = f"{method.upper()} {path} {what}"
                if "example" not in content:
                    wrong.append(f"{where}: none")
                elif kind != "text/event-stream":  # of which the schema describes one event
                    wrong += [f"{where}: {one}" for one in fits(made, content["schema"], content["example"])]
    assert wrong == []
    names = {f"{method.upper()} {path}" for path, method, _ in operations(made)}
    assert BODIES.keys() | ANSWERS.keys() <= names


def test_every_operation_names_the_codes_of_its_problems_each_with_an_example(made: dict[str, Any]) -> None:
    for path, method, operation in operations(made):
        for status, response in operation["responses"].items():
            shown = response.get("content", {}).get("application/problem+json")
            if shown is None:
                continue
            assert shown["examples"], (path, method, status)
            for code in shown["examples"]:
                value = made["components"]["examples"][code]["value"]
                assert f"`{code}`" in response["description"], (path, status)
                assert value["code"] == code
                assert status in ("default", str(value["status"])), (path, status, code)
                assert fits(made, shown["schema"], value) == [], code


def test_the_paper_and_the_document_name_the_same_problems(made: dict[str, Any]) -> None:
    paper = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([\d ·]+) \| (`[^|]+) \|", paper.partition("## Errors")[2].partition("\n## ")[0], re.MULTILINE
    )
    told = {code for _, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    named = {
        code
        for _, _, operation in operations(made)
        for response in operation["responses"].values()
        for code in response.get("content", {}).get("application/problem+json", {}).get("examples", ())
    }
    assert named >= set(ANYWHERE)
    assert named == made["components"]["examples"].keys()
    assert told - named == {"bad_handshake", "upgrade_required"}, "those are about /ws, which is not in here"
    assert named - told == set()
    for statuses, codes in rows:
        for code in told & set(re.findall(r"`(\w+)`", codes)) - {"bad_handshake", "upgrade_required"}:
            assert str(made["components"]["examples"][code]["value"]["status"]) in statuses, code


def test_the_members_of_a_push_are_those_that_are_read() -> None:
    assert PUSH_BODY["properties"].keys() == pushes._FIELDS
    assert ITEM["properties"].keys() == pushes._ITEM_FIELDS


def test_the_example_is_a_push_and_an_item() -> None:
    assert pushes.read_push(EXAMPLE, key=None).recipients == ("42",)
    assert pushes.read_item(EXAMPLE).ttl == 86_400


def test_it_is_made_once(app: FastAPI) -> None:
    assert document(app) is document(app) is app.openapi()
