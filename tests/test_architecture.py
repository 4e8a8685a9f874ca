"""The floors of the house, read from the source of ``gateway/``: what may import what, and where a library lives.

Each rule is a function from the sources to complaints; the tests at the end show every rule a house that breaks it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gateway"
MAX_LINES = 300
LONGER: Mapping[str, int] = {"model": 500, "ports": 500}
"""Lists, not programs: the nouns, and the seams on one screen. They are looked up in, not followed."""

# A name is a module of gateway/ or a package of it, with everything inside. Imports go down, or sideways.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("model", "errors", "closing", "ports"),
    (
        *("feed", "replay", "hub", "frames", "revocations", "limits", "group", "turns", "metrics", "epoch", "auth"),
        *("origins", "hosts", "introduction", "hardening", "cookies"),
        "redis_link",  # what the adapters share that speak to Redis
    ),
    (
        *("login", "attempts", "underway", "trail", "allowance", "granting", "exchange", "issuer_keys"),
        *("authn", "tickets", "revoke", "publish", "relay"),
        *("connection", "telling", "ties", "pulse", "lag", "janitor"),
        *("drain", "services", "rotation", "presented"),
        *("store", "bus", "presence", "limiting"),
    ),
    ("sockets", "api"),
    (
        *("app", "opening", "background", "siblings", "first_start", "garbage", "cli", "commands", "__main__"),
        *("logs", "client", "settings", "federation", "jwks"),
    ),
)
# What other people's programs import, and all of ours that it may import: words.
GUEST, WORDS = "client", ("closing",)
# The half of floor 2 that says what we do things with. It never meets the other half, nor its parts each other.
ADAPTERS = frozenset({"store", "bus", "presence", "limiting"})

# Library → the modules and packages that may import it. Not listed: nobody may.
FLOOR_3_AND_4 = FLOORS[3] + FLOORS[4]
HOMES: Mapping[str, tuple[str, ...]] = {
    "jose": ("auth.tokens", "auth.foreign"),
    "passlib": ("auth.passwords",),
    "argon2": ("auth.passwords",),
    "cryptography": ("auth",),
    "sqlalchemy": ("store",),
    "alembic": ("store",),
    "asyncpg": ("store.postgres",),
    "redis": ("bus", "limiting.script", "redis_link"),
    "hiredis": ("bus",),
    "fastapi": FLOOR_3_AND_4,
    "starlette": FLOOR_3_AND_4,
    "pydantic": ("api", "settings", "cli"),
    "prometheus_client": ("metrics",),
    "websockets": ("sockets", "client.listener"),
    "uvicorn": ("sockets",),
    "httptools": ("sockets",),
    "uvloop": ("sockets", "app"),
    "httpx2": ("client", "commands", "jwks"),
    "structlog": ("logs", "api.edge"),
    "typer": ("cli", "commands"),
    "click": ("cli", "commands"),
    "rich": ("cli", "commands"),
    "orjson": ("frames", *FLOORS[2], *FLOOR_3_AND_4, "auth"),
}
READS_ENVIRONMENT = ("settings", "app", "cli", "commands")
READS_CLOCK = ("model", "app", "opening", "cli", "commands", "logs")
"""``model.new_id`` needs the time only to order ids; the others stand outside the core and inject the clock into it."""


@dataclass(frozen=True)
class House:
    """Module name without ``gateway.`` ("" is the package itself, "store" its ``__init__``) → source text."""

    sources: Mapping[str, str]

    @classmethod
    def read(cls, root: Path) -> House:
        paths = sorted(root.rglob("*.py"))
        names = {path: ".".join(path.relative_to(root).with_suffix("").parts) for path in paths}
        return cls({_of_package(name): path.read_text(encoding="utf-8") for path, name in names.items()})

    def trees(self) -> Iterator[tuple[str, ast.Module]]:
        for name, text in self.sources.items():
            yield name, ast.parse(text, filename=name)

    def imports(self) -> Iterator[tuple[str, str]]:
        """(importing module, what it imports), also inside functions and under TYPE_CHECKING: an arrow is an arrow."""
        for name, tree in self.trees():
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    yield from ((name, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    whole = "." * node.level + (node.module or "")
                    yield from ((name, f"{whole}.{alias.name}") for alias in node.names)

    def arrows(self) -> Iterator[tuple[str, str]]:
        """Imports of our own modules: (importing module, imported module)."""
        for name, target in self.imports():
            if target.split(".")[0] != "gateway":
                continue
            found = target.removeprefix("gateway").removeprefix(".")
            while found and found not in self.sources:  # a name inside a module
                found = found.rpartition(".")[0]
            if found and found != name:
                yield name, found


def _of_package(name: str) -> str:
    return "" if name == "__init__" else name.removesuffix(".__init__")


def _room(name: str) -> str:
    return name.split(".")[0]


def _floor(name: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if _room(name) in rooms), None)


def _within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def unplaced(house: House) -> list[str]:
    return [f"{name}: give it a floor" for name in house.sources if name and _floor(name) is None]


def upward(house: House) -> list[str]:
    return [
        f"{name} (floor {here}) imports {target} (floor {there})"
        for name, target in house.arrows()
        if (here := _floor(name)) is not None and (there := _floor(target)) is not None and here < there
    ]


def halves_that_meet(house: House) -> list[str]:
    """Upward arrows are another rule; here only the arrows within floor 2 count."""
    return [
        f"{name} imports {target}: " + ("adapters do not know each other" if both else "only app.py joins the halves")
        for name, target in house.arrows()
        if _floor(name) == _floor(target) == 2 and _room(name) != _room(target)
        if (both := {_room(name), _room(target)} <= ADAPTERS) or {_room(name), _room(target)} & ADAPTERS
    ]


def guests_that_wander(house: House) -> list[str]:
    """The client runs where no server is installed: what it needs of ours comes with it into every such process."""
    return [
        f"{name} imports {target}: a client takes words from here ({', '.join(WORDS)}), and no server code"
        for name, target in house.arrows()
        if _room(name) == GUEST and not _within(target, (GUEST, *WORDS))
    ]


def circles(house: House) -> list[str]:
    """A package's ``__init__`` is a node of its own: importing ``a.b`` runs ``a``, but is no arrow to it."""
    graph: dict[str, set[str]] = {name: set() for name in house.sources}
    for name, target in house.arrows():
        graph[name].add(target)
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" → ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    return found


def strangers(house: House) -> list[str]:
    """Third-party libraries outside their home, and relative imports, which hide where an arrow points."""
    complaints = []
    for name, target in house.imports():
        library = target.split(".")[0]
        if not library:
            complaints.append(f"{name}: relative import {target}")
        elif library in sys.stdlib_module_names or library == "gateway":
            continue
        elif library not in HOMES:
            complaints.append(f"{name} imports {library}: give it a home in HOMES")
        elif not _within(name, HOMES[library]):
            complaints.append(f"{name} imports {library}, whose home is {', '.join(HOMES[library])}")
    return complaints


def outgrown(house: House) -> list[str]:
    counts = {name: len(text.splitlines()) for name, text in house.sources.items()}
    limits = {name: LONGER.get(name, MAX_LINES) for name in counts}
    return [f"{n}: {count} lines, more than {limits[n]}" for n, count in counts.items() if count > limits[n]]


def nameless(house: House) -> list[str]:
    """Every module with code says in the first line of its docstring what it is."""
    return [
        f"{name or '__init__'}: begin with a docstring whose first line says what this is, and what not"
        for name, tree in house.trees()
        if tree.body and len((ast.get_docstring(tree) or "").partition("\n")[0].split()) < 3
    ]


def environment_readers(house: House) -> list[str]:
    return _users_of(house, {"os.environ", "os.environb", "os.getenv", "os.getenvb"}, READS_ENVIRONMENT)


def clock_readers(house: House) -> list[str]:
    clocks = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    return _users_of(house, clocks | {f"datetime.{clock}" for clock in clocks}, READS_CLOCK)


def _users_of(house: House, names: set[str], allowed: tuple[str, ...]) -> list[str]:
    complaints = []
    for name, tree in house.trees():
        if _within(name, allowed):
            continue
        complaints += [
            f"{name}:{node.lineno} uses {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node) in names
        ]
        complaints += [
            f"{name}:{node.lineno} imports {node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if f"{node.module}.{alias.name}" in names
        ]
    return complaints


Rule = Callable[[House], list[str]]
RULES: tuple[Rule, ...] = (
    *(
        unplaced,
        upward,
        halves_that_meet,
        guests_that_wander,
        circles,
        strangers,
        outgrown,
        nameless,
        environment_readers,
        clock_readers,
    ),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    house = House.read(ROOT)
    assert {"model", "ports", "settings"} <= house.sources.keys(), "this looks at the wrong place"
    assert rule(house) == []


@pytest.mark.parametrize(
    ("rule", "sources", "complaint"),
    [
        (unplaced, {"cellar": ""}, "cellar: give it a floor"),
        (upward, {"feed": "from gateway.publish import push", "publish": ""}, "feed (floor 1) imports publish"),
        (upward, {"model": "def f():\n    import gateway.app", "app": ""}, "model (floor 0) imports app"),
        (upward, {"store.inbox": "from gateway.api import deps", "api": "", "api.deps": ""}, "imports api.deps"),
        (halves_that_meet, {"login": "from gateway import store", "store": ""}, "only app.py joins"),
        (halves_that_meet, {"bus.memory": "import gateway.relay", "relay": ""}, "only app.py joins"),
        (halves_that_meet, {"bus.memory": "import gateway.store.engine", "store.engine": ""}, "do not know each other"),
        (guests_that_wander, {"client.calls": "from gateway.errors import X", "errors": ""}, "imports errors"),
        (circles, {"hub": "import gateway.feed", "feed": "from gateway.hub import Hub"}, "hub → feed → hub"),
        (
            circles,
            {"api.a": "import gateway.api.b", "api.b": "import gateway.api.c", "api.c": "import gateway.api.a"},
            "api.a → api.b → api.c → api.a",
        ),
        (strangers, {"login": "from jose import jwt"}, "login imports jose, whose home is auth.tokens, auth.foreign"),
        (strangers, {"auth.passwords": "import jose.jwt"}, "auth.passwords imports jose"),
        (strangers, {"publish": "def f():\n    from sqlalchemy.sql import text"}, "publish imports sqlalchemy"),
        (strangers, {"connection": "from starlette.websockets import WebSocket"}, "connection imports starlette"),
        (strangers, {"app": "import leftpad"}, "give it a home"),
        (strangers, {"hub": "from . import feed"}, "relative import"),
        (outgrown, {"hub": "\n" * 301}, "hub: 301 lines"),
        (nameless, {"hub": "x = 1"}, "hub: begin with a docstring"),
        (nameless, {"hub": '"""Hub."""'}, "hub: begin with a docstring"),
        (environment_readers, {"store.engine": "import os\nx = os.environ.get('X')"}, "store.engine:2 uses os.environ"),
        (environment_readers, {"hub": "from os import getenv"}, "hub:1 imports os.getenv"),
        (clock_readers, {"publish": "import time\ndef f(clock=time.time): ..."}, "publish:2 uses time.time"),
        (clock_readers, {"auth.tokens": "from datetime import datetime\nx = datetime.now()"}, "uses datetime.now"),
        (clock_readers, {"hub": "import datetime\nx = datetime.datetime.now()"}, "uses datetime.datetime.now"),
    ],
)
def test_a_house_that_breaks_the_rule_is_noticed(rule: Rule, sources: dict[str, str], complaint: str) -> None:
    assert any(complaint in line for line in rule(House(sources))), rule(House(sources))


def test_what_the_rules_allow_is_left_alone() -> None:
    house = House(
        {
            "": '"""The package, and nothing in it."""',
            "model": '"""The words, and no rules."""\nimport time\nx = time.time',
            "store": "",
            "store.engine": '"""Connections, no statements."""\nimport sqlalchemy\nfrom gateway import model',
            "store.inbox": '"""Statements, no connections."""\nfrom gateway.store.engine import begin',
            "app": '"""The only wiring there is."""\nfrom gateway.store import inbox\nfrom gateway import model, store',
        }
    )
    assert [complaint for rule in RULES for complaint in rule(house)] == []


def test_no_room_stands_on_two_floors() -> None:
    rooms = [room for floor in FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert {place.split(".")[0] for places in HOMES.values() for place in places} <= set(rooms)
