"""The OpenAPI document as a page of the site: every call, its body, its answers and its errors, with their examples.

Made from the code whenever the site is, so that the two cannot differ. ``conf.py`` puts it under ``docs/openapi.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.app import create_app
from gateway.settings import read_settings


def document() -> dict[str, Any]:
    """As a gateway with its default settings serves it at ``/openapi.json``."""
    return create_app(read_settings({})).openapi()


def markdown(document: dict[str, Any]) -> str:
    """The sections of the page, one for each tag, one inside for each call."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: dict[str, Any]) -> Iterator[str]:
    examples = document["components"]["examples"]
    for tag in document["tags"]:
        yield from (f"## {tag['name'].capitalize()}", "", tag["description"], "")
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(f"{method.upper()} {path}", operation, examples)
    yield from ("## Errors that can come to any call", "")
    yield from _problems({"default": document["paths"]["/inbox"]["get"]["responses"]["default"]}, examples)


def _operation(name: str, operation: dict[str, Any], examples: dict[str, Any]) -> Iterator[str]:
    yield from (f"### {name}", "", f"**{operation['summary']}.** {operation.get('description', '')}", "")
    yield from (f"*Who:* {_who(operation)}", "")
    if operation.get("parameters"):
        yield from ("| parameter | in | |", "|---|---|---|")
        for one in operation["parameters"]:
            needed = " **Required.**" if one.get("required") else ""
            yield f"| `{one['name']}` | {one['in']} | {one.get('description', '')}{needed} |"
        yield ""
    for kind, taken in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"*Body*, `{kind}`:", "", *_code(taken["example"]))
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            yield from (f"*{status}*: {answer['description']}", "")
            for given in answer.get("content", {}).values():
                yield from _code(given["example"])
    problems = {status: one for status, one in operation["responses"].items() if status[0] in "45"}
    if problems:
        yield from _problems(problems, examples)


def _who(operation: dict[str, Any]) -> str:
    scopes = [scope for way in operation.get("security", ()) for scope in way.get("oauth2", ())]
    if scopes:
        return f"scope `{scopes[0]}`"
    if any("basic" in way for way in operation.get("security", ())):
        return "a client (HTTP Basic, or in the form), or an access token"
    return "any access token" if operation.get("security") else "anybody"


def _problems(problems: dict[str, Any], examples: dict[str, Any]) -> Iterator[str]:
    yield from ("| status | `code` | |", "|---|---|---|")
    for status, problem in problems.items():
        shown = problem["content"].get("application/problem+json", {}).get("examples", {})
        for code in shown:
            value = examples[code]["value"]
            yield f"| {value['status']} | `{code}` | {value['detail']} |"
        if "application/json" in problem["content"]:
            yield f"| {status} | | RFC 6749: {problem['description']} |"
    yield ""


def _code(example: Any) -> Iterator[str]:
    text = example if isinstance(example, str) else json.dumps(example, indent=2)
    yield from ("```json" if not isinstance(example, str) else "```text", text.rstrip("\n"), "```", "")
