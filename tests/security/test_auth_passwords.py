"""AUTH-01 … AUTH-04, AUTH-09, AUTH-10: what is stored of a password, which can be set, and the first one."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from callers import login
from passlib.hash import argon2
from wire import ADMIN_PASSWORD, ROOT, Node, User, eventually, running

from gateway.auth import guessable
from gateway.auth.guessable import LIST
from gateway.store.engine import open_store

IMPORTED = "an imported password"
BCRYPT = "$2b$04$abcdefghijklmnopqrstuuE3tXTK9kieilhTxvCkLvwFUPrYUqeAK"
"""A hash of it, as other programs keep them. It counts for nothing here: docs/security.md says why."""
OURS = re.compile(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$")


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A gateway whose limits are not what is tried: wrong passwords are sent to it by the dozen."""
    with running(tmp_path_factory.mktemp("node"), login_failures=0) as node:
        yield node


def stored(node: Node, user: User) -> str:
    async def read() -> str:
        async with open_store(str(node.settings["database_url"]), tool=True) as store:
            return await store.users.password_hash(user.id)

    return asyncio.run(read())


def replace(node: Node, user: User, hashed: str) -> None:
    """What another program, or an older version, has left in the database."""

    async def write() -> None:
        async with open_store(str(node.settings["database_url"]), tool=True) as store:
            await store.users.rehash(user.id, old=await store.users.password_hash(user.id), new=hashed)

    asyncio.run(write())


def test_AUTH_01_a_password_is_stored_as_argon2id_with_the_costs_of_owasp(lenient: Node) -> None:
    user = lenient.user()
    found = OURS.match(stored(lenient, user))
    assert found is not None
    memory, passes, lanes = map(int, found.groups())
    assert memory >= 19_456
    assert passes >= 2
    assert lanes >= 1
    other = lenient.user(password=user.password)
    assert stored(lenient, other) != stored(lenient, user), "each has a salt of its own"


@pytest.mark.parametrize("cost", [{"memory_cost": 1024}, {"rounds": 1}, {"type": "I"}])
def test_AUTH_02_a_weaker_hash_is_replaced_when_its_password_is_given(
    lenient: Node, cost: dict[str, int | str]
) -> None:
    user = lenient.user()
    weak = argon2.using(**({"type": "ID", "memory_cost": 19_456, "rounds": 2, "parallelism": 1} | cost))
    replace(lenient, user, weak.hash(user.password))
    before = stored(lenient, user)
    assert login(lenient, user.username, "not the password").status_code == 401
    assert stored(lenient, user) == before
    assert login(lenient, user.username, user.password).status_code == 200
    after = stored(lenient, user)
    assert after != before
    assert OURS.match(after)
    assert login(lenient, user.username, user.password).status_code == 200
    assert stored(lenient, user) == after


@pytest.mark.parametrize("length", [8, 64, 128, 1024])
def test_AUTH_03_every_character_of_a_password_counts(lenient: Node, length: int) -> None:
    password = ("päß wörd🐎 long " * 100)[:length]
    password = password[:-1] + "z"
    user = lenient.user(password=password)
    assert login(lenient, user.username, password).status_code == 200
    for wrong in (password[:-1], password[:-1] + "y", password + "z", password.upper()):
        assert login(lenient, user.username, wrong).status_code == 401


def test_AUTH_03_what_follows_72_bytes_counts(lenient: Node) -> None:
    base = "x1" * 36
    user = lenient.user(password=base + "suffix")
    assert login(lenient, user.username, base).status_code == 401
    assert login(lenient, user.username, base + "other!").status_code == 401
    assert login(lenient, user.username, base + "suffix").status_code == 200


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("1234567", "password_too_short"),
        ("🐎" * 7, "password_too_short"),
        ("", "password_too_short"),
        ("x" * 1025, "password_too_long"),
        ("x" * 5000, "password_too_long"),
    ],
)
def test_AUTH_03_a_shorter_or_longer_one_cannot_be_set_and_is_wrong_at_sign_in(
    lenient: Node, password: str, code: str
) -> None:
    body = {"username": "too short or long", "password": password}
    problem = lenient.request("POST", "/admin/users", token=lenient.admin, json=body, expect=422).json()
    assert (problem["code"], [error["pointer"] for error in problem["errors"]]) == (code, ["/password"])
    for name in ("admin", "nobody"):
        answer = login(lenient, name, password)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_credentials")
    if password:
        form = {"grant_type": "password", "username": "admin", "password": password}
        answer = lenient.request("POST", "/auth/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_AUTH_03_a_password_with_nul_is_not_cut_there(lenient: Node) -> None:
    """It is taken whole or not at all (contract 5: NUL is refused): never its first part."""
    user = lenient.user(password="before the nul")
    assert login(lenient, user.username, "before the nul\0and after").status_code in (401, 422)
    body = {"username": "nul", "password": "before the nul\0and after"}
    answer = lenient.request("POST", "/admin/users", token=lenient.admin, json=body)
    assert answer.status_code in (201, 422)
    assert login(lenient, "nul", "before the nul").status_code == 401


def common(amount: int) -> list[str]:
    words = (Path(guessable.__file__).parent / LIST).read_text("ascii").partition("=" * 40 + "\n")[2].splitlines()
    assert len(words) > 3000
    return [*words[:: len(words) // amount], "password", "12345678", "qwertyuiop", "PASSWORD1", "Jennifer"]


def test_AUTH_04_a_common_password_cannot_be_set_by_any_way(lenient: Node) -> None:
    user = lenient.user()
    access = user.token()
    for word in common(40):
        attempts = [
            ("POST", "/admin/users", lenient.admin, {"username": "new", "password": word}, "/password"),
            ("PUT", f"/admin/users/{user.id}/password", lenient.admin, {"password": word}, "/password"),
            (
                *("PUT", "/auth/password", access),
                {"current_password": user.password, "new_password": word},
                "/new_password",
            ),
        ]
        for method, path, token, body, pointer in attempts:
            problem = lenient.request(method, path, token=token, json=body, expect=422).json()
            assert (problem["code"], problem["errors"][0]["pointer"]) == ("password_common", pointer), word
            assert word == "password" or word not in str(problem)
    assert login(lenient, user.username, user.password).status_code == 200


def test_AUTH_04_neither_can_the_username_or_the_name_of_the_service(lenient: Node) -> None:
    for word in ("rosalind-f", "Rosalind-F", "rosalind-f2024!", "notification-gateway", "Gateway1"):
        body = {"username": "rosalind-f", "password": word}
        problem = lenient.request("POST", "/admin/users", token=lenient.admin, json=body, expect=422).json()
        assert problem["code"] == "password_common", word


def test_AUTH_04_the_command_line_refuses_it_too(lenient: Node) -> None:
    for words in (["user", "add", "somebody"], ["user", "passwd", "admin"]):
        status, _, complained = lenient.command(*words, "--password-stdin", input="jennifer\n", within=150)
        assert status != 0
        assert "first that are guessed" in complained, complained


def test_AUTH_04_the_list_is_in_the_wheel() -> None:
    """``hatchling`` packs what lies in ``gateway/``, unless it is ignored by git."""
    tracked = subprocess.run(
        ["git", "check-ignore", f"gateway/auth/{LIST}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert tracked.stdout == ""
    assert (ROOT / "gateway" / "auth" / LIST).is_file()


def test_AUTH_09_a_common_first_password_stops_the_start(tmp_path: Path) -> None:
    for password in ("jennifer", "admin-2024", "short"):
        node = Node(tmp_path, bootstrap_admin_password=password).start(wait=False)
        assert node.process is not None
        assert node.process.wait(150) == 2
        text = node.log_text()
        assert "GATEWAY_BOOTSTRAP_ADMIN_PASSWORD: " in text
        assert "Traceback" not in text


def test_AUTH_09_a_fresh_install_has_no_default_password(start: Callable[..., Node]) -> None:
    node = start(bootstrap_admin_password="", login_failures=0)  # empty counts as unset
    said = eventually(lambda: re.search(r"^password +(\S+)", node.log_text(), re.MULTILINE), what="the first password")
    password, mentions = said[1], node.log_text().count(said[1])
    assert len(password) >= 20
    assert login(node, "admin", password).status_code == 200
    for guess in ("admin", "password", "", "changeme", "gateway", "notification-gateway", ADMIN_PASSWORD):
        assert login(node, "admin", guess).status_code == 401
    node.stop()
    node.start()
    assert login(node, "admin", password).status_code == 200
    assert node.log_text().count(password) == mentions, "it is shown at the first start only"


@pytest.mark.parametrize(
    "corrupt",
    [
        *("", "!", "plain text", "$argon2id$", "$argon2id$v=19$m=19456,t=2,p=1$", "$2b$12$" + "x" * 53),
        "$argon2id$v=19$m=4294967295,t=4294967295,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
        BCRYPT,
    ],
)
def test_AUTH_10_a_hash_that_cannot_be_read_is_a_wrong_password(lenient: Node, corrupt: str) -> None:
    user = lenient.user(password=IMPORTED)
    replace(lenient, user, corrupt)
    for password in (user.password, corrupt, "x"):
        answer = login(lenient, user.username, password)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_credentials")
    assert stored(lenient, user) == corrupt
    reset = {"password": "a new and good one"}
    lenient.request("PUT", f"/admin/users/{user.id}/password", token=lenient.admin, json=reset, expect=204)
    assert login(lenient, user.username, reset["password"]).status_code == 200
