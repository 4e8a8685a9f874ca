"""Every ``sh`` and ``html`` block of the README is run by some test, and so is each command of its prose."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from freeport import free_port
from pasted import BLOCK, README, blocks, replaced, running, section
from servers import Redis
from typer.main import get_command
from wire import ADMIN_PASSWORD, ROOT, eventually

from gateway.cli import app

RUN_BY = {
    "make serve    # sets up": "tests/clients/test_readme_page.py runs it, with a setting; .ci/run runs make test",
    ". .venv/bin/activate": "here",
    "GATEWAY_ALLOWED_ORIGINS=": "tests/clients/test_readme_page.py",
    "mkdir -p var/page": "tests/clients/test_readme_page.py",
    "<!doctype html>": "tests/clients/test_readme_page.py",
    'gateway send 42 "Hello, page"': "tests/clients/test_readme_page.py",
    "export GATEWAY_DATABASE_URL=": "here",
}
"""How each block begins. The ``console`` blocks are those of tests/test_readme.py."""
NODES = 4


def test_no_block_of_the_readme_goes_untried() -> None:
    text = README.read_text("utf-8")
    found = [code for _, code in BLOCK.findall(text)]
    assert len(found) == len(RUN_BY)
    assert [start for code, start in zip(found, RUN_BY, strict=True) if not code.startswith(start)] == []
    assert {*re.findall(r"^```(\w+)$", text, re.MULTILINE)} == {"sh", "html", "console"}


def test_every_make_of_the_papers_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    papers = [README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guides").glob("*.md")]
    said = "\n".join(paper.read_text("utf-8") for paper in papers)
    pasted = "\n".join(code for _, code in BLOCK.findall(said))
    named = {*re.findall(r"`make ([a-z]+)\b", said), *re.findall(r"^make ([a-z]+)\b", pasted, re.MULTILINE)}
    assert {"serve", "test", "docs"} <= named <= set(phony.split())
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.findall(r"^make (\w+)$", ci, re.MULTILINE) == ["check", "test"]
    assert "$(MAKE) --no-print-directory docs" in makefile, "make check makes the site too"


def test_every_gateway_command_of_the_papers_exists_with_its_options() -> None:
    papers = [
        README,
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "guides").glob("*.md"),
        *(ROOT / "deploy").iterdir(),
    ]
    said = "\n".join(paper.read_text("utf-8") for paper in papers)
    pasted = "\n".join(code for _, code in BLOCK.findall(said))
    name = r"gateway ((?:[a-z-]|--)[^`|#\n]*)"
    lines = re.findall(rf"(?:`|\$ |\$.*\| ){name}", said) + re.findall(rf"^{name}", pasted, re.MULTILINE)
    assert len(lines) > 30
    wrong = [line for line in lines if not exists(line.split())]
    assert wrong == []


def exists(words: list[str]) -> bool:
    command: Any = get_command(app)
    while words and re.fullmatch(r"[a-z][a-z-]*", words[0]) and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return False
        command = command.commands[words.pop(0)]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    return {word for word in words if word.startswith("--")} <= options


def test_many_nodes_start_as_the_readme_says(tmp_path: Path, database: Callable[[], str], redis_server: Redis) -> None:
    (enter,) = blocks("sh", section("A session"))
    (serve,) = blocks("sh", section("When one process is not enough"))
    port = free_port()
    places = {
        "postgresql+asyncpg://gateway:…@db.example/gateway": database(),
        "redis://redis.example:6379/0": f"redis://127.0.0.1:{redis_server.port}/0",
    }
    settings = {"GATEWAY_PORT": str(port), "GATEWAY_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD}
    command = f"{enter}\ncommand -v gateway\n{replaced(serve, places)}"
    with (
        running(command, tmp_path / "serve.log", settings, ready="The gateway is ready"),
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
    ):
        who = {"username": "admin", "password": ADMIN_PASSWORD}
        token = client.post("/auth/login", json=who).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}

        def nodes() -> int:
            return len(client.get("/admin/presence/summary", headers=headers).json().get("nodes", ()))

        eventually(lambda: nodes() == NODES, within=30, what="as many nodes as workers")
        assert client.get("/readyz").json() == {"status": "ready"}
    assert str(ROOT / ".venv" / "bin" / "gateway") in (tmp_path / "serve.log").read_text()
