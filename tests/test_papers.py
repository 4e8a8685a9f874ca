"""The papers say what the code says: settings, close reasons, error codes, the promise. Tests no behaviour."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.closing import ALL
from gateway.settings import read_settings, setting_names

ROOT = Path(__file__).parent.parent
ENV_EXAMPLE = ROOT / ".env.example"
SETTING = re.compile(r"^#(GATEWAY_[A-Z_]+)=(.*)$")
CODE_IS_ARGUMENT = {
    **{"Conflict": 0, "NotFound": 0, "TokenError": 0, "FrameError": 0, "frames.error": 0},
    **{"Refusal": 1, "HostRefusal": 1, "_members": 1},
}
"""What is called with a code, and at which place it stands."""
NEVER_SENT = {"error"}
"""``GatewayError`` itself is never raised."""


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def files() -> list[Path]:
    """What the repository holds, or would hold after ``git add``."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def error_codes() -> set[str]:
    """Every ``code`` that ``gateway/`` can give an error, read from the source."""
    return {code for path in (ROOT / "gateway").rglob("*.py") for code in _codes(ast.parse(path.read_text("utf-8")))}


def _codes(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.Assign | ast.AnnAssign):
                    yield from _assigned(statement)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            if any(isinstance(target, ast.Name) and target.id == "_CODES" for target in node.targets):
                yield from (code for value in node.value.values for code in _texts(value))
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            name = called if called == "frames.error" else called.rpartition(".")[2]
            place = CODE_IS_ARGUMENT.get(name)
            if place is not None and len(node.args) > place:
                yield from (f"unknown_{code}" if name == "NotFound" else code for code in _texts(node.args[place]))
            yield from (code for keyword in node.keywords if keyword.arg == "code" for code in _texts(keyword.value))


def _texts(node: ast.expr) -> Iterator[str]:
    """The string constants an expression can come to: itself, or either side of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


def _assigned(statement: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    """``code = "x"`` and ``code, detail = "x", "…"`` in the body of a class."""
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        for name, value in zip(names, values, strict=False):
            if isinstance(name, ast.Name) and name.id == "code" and isinstance(value, ast.Constant):
                yield str(value.value)


def test_every_setting_stands_in_the_example_and_nothing_else() -> None:
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    named = [match[1] for line in lines if (match := SETTING.match(line))]
    assert named == setting_names()
    assert not [line for line in lines if line and not line.startswith("#")], "every setting is commented out"


def test_every_setting_in_the_example_is_explained_on_the_line_above() -> None:
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    above = {match[1]: lines[at - 1] for at, line in enumerate(lines) if (match := SETTING.match(line))}
    assert [name for name, line in above.items() if not re.match(r"# \w.*\.$", line)] == []


def test_the_values_in_the_example_are_the_defaults() -> None:
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    given = {match[1]: match[2] for line in lines if (match := SETTING.match(line))}
    defaults = read_settings({})
    assert read_settings(given) == defaults
    shown = {name for name, value in given.items() if value}
    unset = (None, (), "")
    assert shown == {n for n in setting_names() if getattr(defaults, n.removeprefix("GATEWAY_").lower()) not in unset}


def test_every_close_reason_stands_in_the_protocol_paper() -> None:
    paper = text("docs/protocol.md")
    assert [close.reason for close in ALL if f"`{close.reason}`" not in paper] == []


def test_every_error_code_stands_in_the_api_or_protocol_paper() -> None:
    papers = text("docs/api.md") + text("docs/protocol.md")
    codes = error_codes() - NEVER_SENT
    assert {"token_expired", "unknown_user", "idempotency_mismatch", "store_unavailable"} <= codes
    assert sorted(code for code in codes if f"`{code}`" not in papers) == []


def test_error_codes_are_found_wherever_they_are_given() -> None:
    source = """
class A(E):
    code, detail = "a", "A."
class B(E):
    code: str = "b"
raise Conflict("c", "C.")
raise errors.NotFound("d")
raise Invalid("E.", code="e")
raise TokenError("f" if x else "g", detail)
raise Refusal(400, "h", detail)
_CODES = {404: "i"}
say(frames.error("j", "J."))
raise Conflict(code, "not one")
log.error("neither is this")
"""
    assert set(_codes(ast.parse(source))) == {"a", "b", "c", "unknown_d", *"efghij"}


@pytest.mark.parametrize(
    "sentence",
    [
        "is durable",
        "every signed-in device of its user has acknowledged it or will be sent it: at least once, in `seq` order",
        "`seq` is dense per user: 1, 2, 3, …",
        "One connection never sees the same `seq` twice; a number that will not come is told with a `gap`.",
        "4xx stored nothing.",
        "a retry with the same `Idempotency-Key` within 24 hours makes it exactly one.",
        "A revoked credential stops receiving within one second.",
    ],
)
def test_the_readme_gives_the_promise(sentence: str) -> None:
    prose = re.sub(r"[\s>]+", " ", text("README.md"))
    assert sentence in prose


def test_the_diagram_of_a_client_and_the_table_under_it_know_the_same_states() -> None:
    drawn = set(re.findall(r'font-weight="600">(\w+)</text>', text("docs/phones.svg")))
    paper = text("docs/phones.md").partition("| in state |")[2].partition("\n\n")[0]
    assert drawn == set(re.findall(r"^\| `(\w+)` \|", paper, re.MULTILINE))
    then = {
        row[0]: set(re.findall(r"`([A-Z]\w+)`", row[1]))
        for row in re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", paper, re.MULTILINE)
    }
    ways = re.findall(r"<title>(\w+)[^→]* → (\w+)", text("docs/phones.svg"))
    shown: dict[str, set[str]] = {state: set() for state in drawn}
    for start, end in ways:
        for state in {"awake": ["Connecting", "Open"], "the": []}.get(start, [start]):
            shown[state].add(end)
    assert shown == then


def test_no_paper_needs_a_program_to_draw_what_it_shows() -> None:
    assert [path.name for path in files() if path.suffix == ".md" and "```mermaid" in path.read_text("utf-8")] == []


def test_papers_name_only_settings_that_exist() -> None:
    known = set(setting_names())
    papers = [p for p in files() if p.suffix in {".md", ".yaml", ".yml"} or p.name in {"Dockerfile", "Makefile"}]
    assert {"README.md", "Dockerfile", "compose.yaml"} <= {path.name for path in papers}
    strange = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in papers
        for name in re.findall(r"GATEWAY_[A-Z][A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
        if name not in known
    }
    assert strange == set()


def test_no_file_names_a_place_of_somebodys_machine_or_a_package_index() -> None:
    # Put together here, so that this file does not hold what it looks for.
    places = ["/" + name + "/" for name in ("work", "root", "home", "Users")]
    indexes = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "proxy." + "golang", "extra-" + "index-url"]
    pattern = re.compile("|".join(re.escape(word) for word in places + indexes))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_lock_files_hold_hashes_and_no_addresses() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) == 3
    for lock in locks:
        content = lock.read_text(encoding="utf-8")
        assert "://" not in content, lock.name
        for requirement in content.replace("\\\n", " ").splitlines():
            assert "--hash=sha256:" in requirement, f"{lock.name}: {requirement}"
