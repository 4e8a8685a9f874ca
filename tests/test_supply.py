"""What the gateway is made of: pinned with hashes, above the floors, and the reasons why known advisories do not reach
it. Asks nobody outside; ``make audit`` does.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.auth.keys import parse_signing_keys

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-uv.lock")
ENTRY = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^\s;\\]+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{63,64}\b")
NEVER = ("python-multipart", "multipart", "bcrypt", "libpass", "pyjwt")


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def locked(path: str) -> Mapping[str, str]:
    return {entry["name"]: entry["version"] for entry in ENTRY.finditer(text(path))}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def table(title: str) -> list[list[str]]:
    """The rows of the table in docs/security.md whose first column has this title."""
    lines = text("docs/security.md").splitlines()
    (head,) = (at for at, line in enumerate(lines) if line.startswith(f"| {title} |"))
    rows = []
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert rows
    return rows


@pytest.mark.parametrize("path", LOCKS)
def test_every_entry_of_a_lock_has_its_hashes_and_none_says_where_it_comes_from(path: str) -> None:
    content = text(path)
    entries = list(ENTRY.finditer(content))
    assert entries
    for entry in entries:
        assert "--hash=sha256:" in entry["rest"], entry["name"]
    known = re.compile(r"[a-z0-9][a-z0-9._-]*==[^\s;\\]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in content.splitlines() if line and known.fullmatch(line) is None] == []


def test_what_is_developed_with_is_what_runs() -> None:
    runtime, development = locked("requirements.lock"), locked("requirements-dev.lock")
    assert runtime.items() <= development.items()


def test_every_dependency_that_is_named_is_pinned() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    for wanted, path in (
        (project["project"]["dependencies"], "requirements.lock"),
        (project["dependency-groups"]["dev"], "requirements-dev.lock"),
    ):
        pinned = locked(path)
        for requirement in wanted:
            found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?:([=>]=)([0-9.]+))?", requirement)
            assert found is not None
            name, _, floor = found.groups()
            assert name.lower() in pinned, f"{requirement} is not in {path}"
            assert floor is None or numbers(pinned[name.lower()]) >= numbers(floor), requirement


def test_what_runs_is_above_the_floors_that_are_documented() -> None:
    pinned = locked("requirements.lock")
    rows = table("package")
    assert len(rows) >= 5
    for name, floor, _ in rows:
        assert numbers(pinned[name]) >= numbers(floor), f"{name} {pinned[name]} in the lock"
        assert numbers(importlib.metadata.version(name)) >= numbers(floor), f"{name} as installed"


def test_every_advisory_that_is_explained_is_about_something_that_is_pinned() -> None:
    pinned = locked("requirements.lock")
    for advisory, about, reason in table("advisory"):
        assert re.fullmatch(r"`(CVE-\d{4}-\d+|GHSA(-[0-9a-z]{4}){3}|PYSEC-\d{4}-\d+)`", advisory)
        assert about.split(",")[0] in pinned, f"{advisory}: nothing is left to explain"
        assert len(reason) > 20


@pytest.mark.parametrize("path", ["requirements.lock"])
def test_what_must_not_be_there_is_not(path: str) -> None:
    assert not set(NEVER) & locked(path).keys()
    for name in ("python-multipart", "bcrypt"):
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)


def test_jose_works_with_cryptography_and_loads_neither_ecdsa_nor_rsa_nor_jwe() -> None:
    """In a process of its own: nothing of the tests has been loaded there."""
    code = """if True:
        import json, sys, jose.backends as found, gateway.app, gateway.cli, gateway.commands.people
        backends = [found.ECKey.__module__, found.RSAKey.__module__, found.HMACKey.__module__]
        print(json.dumps([backends, sorted(sys.modules)]))"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    backends, modules = json.loads(said)
    assert set(backends) == {"jose.backends.cryptography_backend"}
    assert "jose.jws" in modules, "this looks at the wrong place"
    assert not {"jose.jwe", "ecdsa", "rsa", "passlib.handlers.bcrypt", "multipart", "python_multipart"} & set(modules)


def test_nothing_names_what_would_read_a_jwe() -> None:
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = {node.attr} if isinstance(node, ast.Attribute) else set()
            if isinstance(node, ast.Import | ast.ImportFrom):
                named = {alias.name for alias in node.names} | {str(getattr(node, "module", ""))}
            assert not {"jwe", "jose.jwe"} & named, path


@pytest.mark.parametrize("algorithm", ["EdDSA", "PS256", "none", "HS2", "ES256K"])
def test_keys_of_algorithms_that_jose_does_not_know_are_refused(algorithm: str) -> None:
    with pytest.raises(ValueError, match="alg"):
        parse_signing_keys(json.dumps([{"kid": "1", "alg": algorithm, "key": "x" * 64}]))


def test_the_policy_is_there_and_points_to_what_exists() -> None:
    policy = text("SECURITY.md")
    for target in re.findall(r"\]\(([^)#]+)", policy):
        assert (ROOT / target).is_file(), target
    assert "SECURITY.md" in text("docs/security.md")
