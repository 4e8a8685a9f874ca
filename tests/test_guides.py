"""The code of ``docs/guides`` does what they say: run as it stands there, with vectors, fakes and a real gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsclient import CLIENT, needs_node, run_node
from wire import ROOT, Node

GUIDES = ROOT / "docs" / "guides"
VECTORS = ROOT / "docs" / "protocol" / "vectors"


def blocks(guide: str, language: str) -> list[str]:
    text = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def vectors(name: str, what: str) -> list[Any]:
    cases = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))[what]
    return [pytest.param(case, id=f"{name}: {case['name']}") for case in cases]


# -- Android and iOS without our client ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def core() -> dict[str, Any]:
    names: dict[str, Any] = {}
    (code,) = blocks("mobile", "python")
    exec(compile(code, "mobile.md", "exec"), names)
    return names


@pytest.mark.parametrize("vector", [*vectors("frames", "scenarios"), *vectors("resume", "scenarios")])
def test_the_core_of_a_phone_keeps_to_the_vectors(core: dict[str, Any], vector: Any) -> None:
    kept = vector["kept"] or {"seq": None, "epoch": None}
    phone = core["Core"](kept["seq"], kept["epoch"])
    done: list[tuple[str, Any]] = []
    for connection in vector["connections"]:
        assert phone.query() == connection["asks"]
        for frame in connection["frames"]:
            done += phone.take(frame)
        ack = phone.ack()
        assert (ack and ack["seq"]) == connection["acks"]
        assert phone.ack() is None
    assert [frame["id"] for what, frame in done if what == "show"] == vector["shows"]
    assert [frame["id"] for what, frame in done if what == "withdrawn"] == vector["removes"]
    assert any(what == "reread" for what, _ in done) == vector["rereads"]
    assert phone.query() == {"after": vector["keeps"]["seq"], "epoch": vector["keeps"]["epoch"]}


@pytest.mark.parametrize("vector", vectors("closes", "cases"))
def test_the_core_of_a_phone_knows_the_ends(core: dict[str, Any], vector: Any) -> None:
    word = {"bug": "stop", "long_backoff": "long"}.get(vector["client"], vector["client"])
    assert core["after_close"](vector["code"], vector["reason"]) == word


def test_the_core_of_a_phone_waits_with_full_jitter(core: dict[str, Any]) -> None:
    row = vectors("closes", "rows")[0].values[0]
    for draw, bound in ((0, 0), (1, 1)):
        waits = [core["wait"](failures, draw) * 1000 for failures in range(len(row["delays_ms"]))]
        assert waits == [bounds[bound] for bounds in row["delays_ms"]]


def test_the_papers_and_the_vectors_agree_how_long_a_long_wait_is(core: dict[str, Any]) -> None:
    cases = [case.values[0] for case in vectors("closes", "cases")]
    long = [case for case in cases if case["client"] == "long_backoff" and case["reason"] != "from_tomorrow"]
    protocol = (GUIDES.parent / "protocol.md").read_text(encoding="utf-8")
    for case in long:
        assert [core["long_wait"](draw) * 1000 for draw in (0, 1)] == case["delay_ms"] == [30_000, 60_000]
        row = re.search(rf"^\| {case['code']} \| .*`{case['reason']}`.* \| (.*) \|$", protocol, re.MULTILINE)
        assert row is not None
        assert row[1] == "long backoff: 30–60 s, at random", case["name"]
    assert len(long) == 3


# -- from a Django or Celery backend -------------------------------------------------------------------------------


def test_what_the_guide_for_backends_shows_is_what_happens(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = {"id": "42", "username": "alice", "password": "correct horse 42"}
    node.request("POST", "/admin/users", token=node.admin, json=alice, expect=201)
    id, secret = node.client()
    for name, value in {"URL": node.url, "CLIENT_ID": id, "CLIENT_SECRET": secret}.items():
        monkeypatch.setenv(f"NOTIFY_{name}", value)
    printed: list[str] = []
    names: dict[str, Any] = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
    for code in blocks("backend", "python"):
        exec(compile(code, "backend.md", "exec"), names)
    assert printed == blocks("backend", "text")[0].splitlines()
    pushed = node.request("GET", f"/admin/users/{alice['id']}", token=node.admin, expect=200).json()
    assert pushed["id"] == "42"
    token = node.request("POST", "/auth/login", json={key: alice[key] for key in ("username", "password")}).json()
    inbox = node.inbox(token["access_token"])
    assert [item["title"] for item in inbox["items"]] == ["Delivered", "Order shipped"], "each of them once"
    names["gateway"]().close()


# -- migrate from a hand-made connection manager -------------------------------------------------------------------


@needs_node
def test_what_comes_over_both_is_shown_once(tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^   ```js\n(.*?)^   ```$", (GUIDES / "migrate.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    before = "const shown = [], show = (one) => shown.push(one), old = {};"
    before += "const client = { on: (_, take) => (client.take = take) };"
    after = """const [a, b] = [{ message_id: 1 }, { message_id: 2 }];
      old.onmessage({ data: JSON.stringify(a) }); client.take({ data: a }); client.take({ data: b });
      old.onmessage({ data: JSON.stringify(b) });
      if (JSON.stringify(shown) !== JSON.stringify([a, b])) throw new Error(JSON.stringify(shown));"""
    (tmp_path / "page.mjs").write_text(f"{before}\n{code}\n{after}")
    run_node(str(tmp_path / "page.mjs"), within=30)


# -- React ---------------------------------------------------------------------------------------------------------

REACT = """
let at = 0, cells = [], cleanup;
export const useState = (first) => { const cell = (cells[at++] ??= { value: first });
  return [cell.value, (next) => { cell.value = typeof next === "function" ? next(cell.value) : next; }]; };
export const useRef = (first) => (cells[at++] ??= { current: first });
export const useEffect = (effect) => { if (!cells[at++]) { cells[at - 1] = true; effect()(); cleanup = effect(); } };
export const render = (hook) => { at = 0; return hook(); };
export const unmount = () => cleanup();
"""
PAGE = """
import assert from "node:assert/strict";
import { render, unmount } from "./react.mjs";
import { useNotifications } from "./hook.mjs";
import { World, jwt, note, settle } from "FAKES";
const world = new World();
const inbox = { items: [note(2), note(1, { read_at: "x" })], head: 2, rev: 0, unread: 1, epoch: "e1", next: null };
world.answers["/inbox"] = () => ({ json: inbox });
globalThis.WebSocket = world.WebSocket;
const ours = { json: async () => ({ access_token: jwt() }) };
globalThis.fetch = async (path, options) => (path === "/notifications/token" ? ours : world.fetch(path, options));
const now = () => render(() => useNotifications("https://push.example.com"));
const shown = () => now().items.map(({ seq, read_at }) => [seq, !!read_at]);
now();
await settle();
await world.hello({ head: 2, after: 2, unread: 1 });
assert.deepEqual(shown(), [[2, false], [1, true]]);
world.wire.say(note(3));
await settle();
assert.deepEqual([shown(), now().unread], [[[3, false], [2, false], [1, true]], 2]);
world.wire.say({ type: "read", ids: ["n3"], unread: 1, rev: 1 });
world.wire.say({ type: "read", up_to: 2, unread: 0, rev: 2 });
assert.deepEqual([shown(), now().unread], [[[3, true], [2, true], [1, true]], 0]);
world.wire.say({ type: "withdrawn", id: "n2", seq: 2, unread: 0, rev: 3 });
assert.deepEqual(shown().map(([seq]) => seq), [3, 1]);
inbox.items = [note(9)];
world.wire.say({ type: "changed", unread: 1, rev: 7 });
await settle();
assert.deepEqual(shown(), [[9, false]]);
await now().markRead("n9");
assert.deepEqual(world.requests.at(-1).body, { ids: ["n9"] });
assert.equal(now().ended, null, "also though the first client has closed");
unmount();
assert.equal(world.wire.readyState, 3, "it hung up");
"""


@needs_node
def test_the_hook_for_react_shows_what_comes_and_what_becomes_of_it(tmp_path: Path) -> None:
    (hook,) = blocks("react", "js")
    imports = {'"react"': '"./react.mjs"', '"notification-gateway-client"': f'"{(CLIENT / "src/index.js").as_uri()}"'}
    for name, path in imports.items():
        assert hook.count(name) == 1
        hook = hook.replace(name, path)
    (tmp_path / "react.mjs").write_text(REACT)
    (tmp_path / "hook.mjs").write_text(hook)
    (tmp_path / "page.mjs").write_text(PAGE.replace("FAKES", (CLIENT / "test/fakes.js").as_uri()))
    run_node(str(tmp_path / "page.mjs"), within=30)
