"""Token exchange (RFC 8693) at the wire: what the token of a trusted issuer opens, what it does not, and what a
stranger can make the gateway fetch."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from issuers import AUDIENCE, Issuer, IssuerKey, claims, issuing
from wire import Node, claims_of, eventually, running

from gateway.settings import SettingsError, read_settings

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"


def exchange(node: Node, token: str, *, kind: str = "jwt", **more: str) -> Any:
    form = {"grant_type": GRANT, "subject_token": token, "subject_token_type": TYPE + kind, **more}
    return node.request("POST", "/auth/token", data=form)


def signed_in(node: Node, token: str, **more: str) -> dict[str, Any]:
    answer = exchange(node, token, **more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refused(node: Node, token: str, **more: str) -> None:
    """As every other token that will not do, to the byte."""
    answer = exchange(node, token, **more)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"error", "error_description"}


def settings(*entries: dict[str, Any]) -> str:
    return json.dumps(list(entries))


WAYS = ("down", "slow", "huge", "compressed", "redirect", "error", "html", "empty", "deep", "endless")
OTHERS = ("elsewhere", "closed", "linking", "crowded", "rotating", "leaving")


@pytest.fixture(scope="module")
def issuers() -> Iterator[dict[str, Issuer]]:
    """One that everybody uses, and one for each test that needs its own."""
    with ExitStack() as stack:
        yield {
            "": stack.enter_context(issuing(IssuerKey("k1"), IssuerKey("rsa", "RS256"))),
            **{name: stack.enter_context(issuing()) for name in (*WAYS, *OTHERS)},
        }


@pytest.fixture
def issuer(issuers: dict[str, Issuer]) -> Issuer:
    return issuers[""]


@pytest.fixture(scope="module")
def trusting(issuers: dict[str, Issuer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A gateway that trusts all of them but ``elsewhere``. Who is new gets a user, but for ``closed``."""
    differing: dict[str, dict[str, Any]] = {"closed": {"create": False}, "linking": {"link": True}}
    entries = [one.entry(**differing.get(name, {})) for name, one in issuers.items() if name != "elsewhere"]
    with running(tmp_path_factory.mktemp("trusting"), trusted_issuers=settings(*entries)) as node:
        assert all(one.asked == 0 for one in issuers.values())
        signed_in(node, issuers["rotating"].token("rotating"))  # half a minute before its test, if all goes well
        yield node


# -- what it opens ------------------------------------------------------------------------------------------------


async def test_the_token_of_a_trusted_issuer_becomes_a_session(trusting: Node, issuer: Issuer) -> None:
    token = issuer.token("emp-1", preferred_username="Ada Lovelace")
    answer = exchange(trusting, token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["issued_token_type"] == f"{TYPE}access_token"
    assert (body["token_type"], body["scope"]) == ("Bearer", "inbox")
    assert claims_of(body["access_token"])["sub"] == "emp-1"
    me = trusting.request("GET", "/auth/me", token=body["access_token"], expect=200).json()
    assert (me["id"], me["username"], me["role"]) == ("emp-1", "Ada Lovelace", "user")
    # A session like any other: it hears, it refreshes, it signs out.
    socket = await trusting.open(body["access_token"])
    trusting.push(trusting.client_token(), user_id="emp-1")
    assert (await socket.next("notification"))["seq"] == 1
    refreshed = trusting.request("POST", "/auth/refresh", json={"refresh_token": body["refresh_token"]}, expect=200)
    trusting.request("POST", "/auth/logout", token=refreshed.json()["access_token"], expect=204)
    assert await socket.closed() == (1008, "token_revoked")
    # Again with the same token, as with a password: another session of the same user.
    again = signed_in(trusting, token)
    assert claims_of(again["access_token"])["sub"] == "emp-1"
    assert claims_of(again["access_token"])["sid"] != claims_of(body["access_token"])["sid"]


@pytest.mark.parametrize("kind", ["jwt", "id_token", "access_token"])
def test_access_tokens_and_id_tokens_are_taken(trusting: Node, issuer: Issuer, kind: str) -> None:
    token = issuer.token("emp-2", key=issuer.keys[1], aud=["account", AUDIENCE], azp="an-app", nonce="n")
    signed_in(trusting, token, kind=kind, requested_token_type=f"{TYPE}access_token", audience="notification-gateway")


async def test_it_is_good_for_nothing_else(trusting: Node, issuer: Issuer) -> None:
    token = issuer.token("emp-3")
    answer = trusting.request("GET", "/inbox", token=token, expect=401)
    assert answer.json()["code"] == "token_invalid"
    assert await trusting.refusal(token) == (1008, "token_invalid")
    trusting.request("POST", "/auth/refresh", json={"refresh_token": token}, expect=401)
    typed = issuer.keys[0].sign(claims(issuer.url, "admin"), header={"typ": "at+jwt"})
    trusting.request("GET", "/admin/users", token=typed, expect=401)


def test_one_of_our_own_is_not_exchanged(trusting: Node, issuer: Issuer) -> None:
    refused(trusting, signed_in(trusting, issuer.token("emp-4"))["access_token"], kind="access_token")


# -- what it does not ---------------------------------------------------------------------------------------------


def test_whatever_is_wrong_with_it_it_is_one_answer(trusting: Node, issuer: Issuer) -> None:
    now, key = int(time.time()), issuer.keys[0]
    head, body, signature = issuer.token().split(".")
    hostile = [
        *("x", "a.b.c", "x" * 10_000, f"{head}.{body}.", f"{head}.{body}.{signature}=", f"{head}..{signature}"),
        IssuerKey("k1").sign(claims(issuer.url)),
        IssuerKey("unheard-of").sign(claims(issuer.url)),
        issuer.token(iss="https://other.example"),
        issuer.token(aud="other"),
        issuer.token(exp=now - 60),
        issuer.token(iat=now - 2 * 86_400),
        issuer.token(iat=now + 600),
        issuer.token(sub=""),
        issuer.token(events={}),
        key.text({"alg": "none"}, claims(issuer.url)),
        key.text({"alg": "HS256", "kid": "k1"}, claims(issuer.url)),
        key.text({"alg": "ES256", "kid": "k1", "crit": ["x"]}, claims(issuer.url)),
        key.text({"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}, claims(issuer.url)),
        key.text('{"alg":"ES256","kid":"k1"}', json.dumps(claims(issuer.url))[:-1] + ',"sub":"admin"}'),
        key.text('{"alg":"ES256","kid":"k1"}', json.dumps(claims(issuer.url))[:-1] + ',"x":1e400,"exp":1e400}'),
    ]
    answers = {(answer.status_code, answer.text) for answer in (exchange(trusting, token) for token in hostile)}
    assert len(answers) == 1
    assert next(iter(answers))[0] == 400
    for token in hostile:
        refused(trusting, token)


def test_TOK_04_a_token_to_be_exchanged_cannot_choose_what_is_fetched(
    trusting: Node, issuers: dict[str, Issuer], issuer: Issuer
) -> None:
    """Neither an address nor a key of its own; and garbage fetches nothing at all."""
    evil = issuers["elsewhere"]
    evil_key = evil.keys[0]
    signed_in(trusting, issuer.token("emp-5"))
    before = issuer.asked
    for header in (
        *({"jku": evil.jwks_url}, {"x5u": evil.jwks_url}, {"jwk": evil_key.jwk}),
        {"x5c": [base64.b64encode(b"certificate").decode()]},
    ):
        refused(trusting, evil_key.text({"alg": "ES256", "kid": "k1", **header}, claims(issuer.url)))
        refused(trusting, evil_key.text({"alg": "ES256", "kid": evil.jwks_url, **header}, claims(issuer.url)))
    refused(trusting, evil.token())  # of an issuer nobody trusts
    refused(trusting, evil_key.text({"alg": "HS256", "kid": "new"}, claims(issuer.url)))
    refused(trusting, evil_key.text({"alg": "ES256", "kid": "new"}, claims(issuer.url, aud="other")))
    refused(trusting, "garbage")
    assert (evil.asked, issuer.asked) == (0, before)
    assert set(issuer.paths) == {"/jwks.json"}


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token_type": f"{TYPE}saml2"}, "invalid_request"),
        ({"subject_token_type": f"{TYPE}refresh_token"}, "invalid_request"),
        ({"requested_token_type": f"{TYPE}refresh_token"}, "invalid_request"),
        ({"actor_token": "a.b.c"}, "invalid_request"),
        ({"actor_token_type": f"{TYPE}jwt"}, "invalid_request"),
        ({"audience": "elsewhere"}, "invalid_target"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said(trusting: Node, issuer: Issuer, changed: dict[str, str], error: str) -> None:
    form = {
        "grant_type": GRANT, "subject_token": issuer.token(), "subject_token_type": f"{TYPE}jwt", **changed,
    }  # fmt: skip
    answer = trusting.request("POST", "/auth/token", data=form, expect=400).json()
    assert answer["error"] == error


def test_without_trusted_issuers_there_is_no_such_grant(node: Node, issuer: Issuer) -> None:
    assert exchange(node, issuer.token()).json()["error"] == "unsupported_grant_type"


# -- whose it is --------------------------------------------------------------------------------------------------


def test_who_is_unknown_stays_out_unless_the_setting_says_otherwise(trusting: Node, issuers: dict[str, Issuer]) -> None:
    trusting.user("local", id="local")
    for name in ("local", "nobody"):
        refused(trusting, issuers["closed"].token(name))
    trusting.request("GET", "/admin/users/nobody", token=trusting.admin, expect=404)


def test_nobody_is_taken_over(trusting: Node, issuers: dict[str, Issuer], issuer: Issuer) -> None:
    """A user who is there is linked if the setting says so; an admin by the command line only; and no other issuer
    gets in as one who was made here."""
    linking = issuers["linking"]
    ann = trusting.user("ann", id="ann")
    trusting.user("boss", id="boss", role="admin")
    refused(trusting, issuer.token("ann"))
    assert claims_of(signed_in(trusting, linking.token("ann"))["access_token"])["sub"] == "ann"
    ann.sign_in()  # the password of before counts as before
    refused(trusting, linking.token("boss"))
    signed_in(trusting, issuer.token("eve"))
    assert claims_of(signed_in(trusting, linking.token("eve"))["access_token"])["sub"] == "eve"
    signed_in(trusting, linking.token("fay"))
    refused(trusting, issuer.token("fay"))
    cli(trusting, "user", "link", "boss", issuer.url, "boss")
    assert cli(trusting, "user", "identities", "boss").splitlines() == ["issuer\tsubject", f"{issuer.url}\tboss"]
    assert "admin" in signed_in(trusting, issuer.token("boss"))["scope"].split()
    cli(trusting, "user", "unlink", issuer.url, "boss")
    refused(trusting, issuer.token("boss"))


def test_who_is_unlinked_while_they_come_in_gets_nothing_and_leaves_no_session(trusting: Node, issuer: Issuer) -> None:
    token = issuer.token("going")
    access = signed_in(trusting, token)["access_token"]
    held = sqlite3.connect(trusting.directory / "gateway.db", isolation_level=None, timeout=5)
    with ThreadPoolExecutor(1) as pool:
        try:
            held.execute("BEGIN IMMEDIATE")
            asked = pool.submit(exchange, trusting, token)
            for _ in range(3):  # a round trip of another is over: this one has read who it is, and waits for the writer
                trusting.request("GET", "/healthz", expect=200)
                time.sleep(0.1)
            assert not asked.done()
            held.execute("DELETE FROM identities WHERE subject = 'going'")
            held.execute("COMMIT")
        finally:
            held.close()
        assert asked.result().json()["error"] == "invalid_request"
    (only,) = trusting.request("GET", "/auth/sessions", token=access, expect=200).json()["items"]
    assert only["id"] == claims_of(access)["sid"]


def test_an_id_that_cannot_be_one_is_a_hash_of_it(trusting: Node, issuer: Issuer) -> None:
    for subject in ("auth0|5f7c", ".", "..", "x" * 65):
        expected = hashlib.sha256(f"{issuer.url}\n{subject}".encode()).hexdigest()
        for _ in range(2):
            answer = signed_in(trusting, issuer.token(subject, preferred_username=" not a name "))
            assert claims_of(answer["access_token"])["sub"] == expected
    for subject in (".a", "...", "..a"):
        assert claims_of(signed_in(trusting, issuer.token(subject))["access_token"])["sub"] == subject


async def test_twenty_who_arrive_at_once_are_one_user(trusting: Node, issuer: Issuer) -> None:
    form = {"grant_type": GRANT, "subject_token": issuer.token("first-sight"), "subject_token_type": f"{TYPE}jwt"}
    async with httpx2.AsyncClient(base_url=trusting.url, timeout=60, verify=False) as http:
        answers = await asyncio.gather(*(http.post("/auth/token", data=form) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert {claims_of(answer.json()["access_token"])["sub"] for answer in answers} == {"first-sight"}
    found = trusting.request("GET", "/admin/audit?limit=200", token=trusting.admin, expect=200).json()["items"]
    assert [(one["action"], one["target"]) for one in found].count(("user_created", "first-sight")) == 1


def test_the_disabled_and_the_deleted_stay_out(trusting: Node, issuer: Issuer) -> None:
    token = issuer.token("leaver")
    access = signed_in(trusting, token)["access_token"]
    path = "/admin/users/leaver"
    trusting.request("PATCH", path, token=trusting.admin, json={"disabled": True}, expect=200)
    refused(trusting, token)
    trusting.request("GET", "/inbox", token=access, expect=401)
    trusting.request("PATCH", path, token=trusting.admin, json={"disabled": False}, expect=200)
    signed_in(trusting, token)
    trusting.request("DELETE", path, token=trusting.admin, expect=204)
    refused(trusting, token)
    refused(trusting, issuer.token("leaver"))
    # Linked by hand, so that the id would be free: somebody who was deleted is not somebody new.
    trusting.user("mover", id="mover")
    cli(trusting, "user", "link", "mover", issuer.url, "mover-1")
    assert claims_of(signed_in(trusting, issuer.token("mover-1"))["access_token"])["sub"] == "mover"
    trusting.request("DELETE", "/admin/users/mover", token=trusting.admin, expect=204)
    refused(trusting, issuer.token("mover-1"))
    trusting.request("GET", "/admin/users/mover-1", token=trusting.admin, expect=404)
    found = trusting.request("GET", "/admin/audit?limit=5", token=trusting.admin, expect=200).json()["items"]
    failed = next(one for one in found if one["action"] == "login_failed")
    assert (failed["target"], failed["detail"]["why"]) == ("mover", "disabled")
    assert cli(trusting, "user", "identities", "mover").splitlines()[1:] == [f"{issuer.url}\tmover-1"]
    refused(trusting, issuer.token("mover"))
    assert '"a user of an issuer cannot be let in"' in trusting.log_text(), "an id that is not given again"
    cli(trusting, "user", "unlink", issuer.url, "mover-1")
    assert claims_of(signed_in(trusting, issuer.token("mover-1"))["access_token"])["sub"] == "mover-1"


def test_who_has_no_password_has_none(trusting: Node, issuer: Issuer) -> None:
    """Until an admin sets one: not the empty one, not the marker, and none can be changed."""
    access = signed_in(trusting, issuer.token("no-password", preferred_username="no password"))["access_token"]
    for guess in ("!", "", "no-password"):
        body = {"username": "no password", "password": guess}
        trusting.request("POST", "/auth/login", json=body, expect=401)
    change = {"current_password": "!", "new_password": "a whole new password"}
    trusting.request("PUT", "/auth/password", token=access, json=change, expect=401)
    reset = {"password": "a whole new password"}
    trusting.request("PUT", "/admin/users/no-password/password", token=trusting.admin, json=reset, expect=204)
    trusting.sign_in("no password", "a whole new password")


def test_LOG_01_an_exchange_is_told_and_its_token_is_not(trusting: Node, issuer: Issuer) -> None:
    good, bad = issuer.token("logged"), issuer.token("logged", aud="canary-of-a-stranger")
    session = claims_of(signed_in(trusting, good)["access_token"])["sid"]
    refused(trusting, bad)
    found = trusting.request("GET", "/admin/audit?limit=50", token=trusting.admin, expect=200).json()["items"]
    by = f"~{issuer.url}"
    assert {(one["action"], one["actor"], one["target"]) for one in found} >= {
        ("user_created", by, "logged"),
        ("identity_linked", by, "logged"),
        ("login", "logged", session),
    }
    login = next(one for one in found if one["target"] == session)
    assert login["detail"] == {"issuer": issuer.url}
    failed = next(one for one in found if one["action"] == "login_failed")
    assert failed["detail"]["reason"] == "exchange"
    assert failed["detail"]["why"] == "audience"
    lines = [json.loads(line) for line in trusting.log_text().splitlines() if line.startswith("{")]
    told = [line for line in lines if line.get("session") == session and line["event"] == "signed in"]
    assert [line["issuer"] for line in told] == [issuer.url]
    assert told[0]["request_id"]
    for token in (good, bad):
        for part in token.split("."):
            assert part not in trusting.log_text()
    assert "canary-of-a-stranger" not in trusting.log_text() + json.dumps(found)


# -- keys ---------------------------------------------------------------------------------------------------------


async def test_a_hundred_at_once_fetch_the_keys_once(trusting: Node, issuers: dict[str, Issuer]) -> None:
    issuer = issuers["crowded"]
    issuer.delay = 0.3
    form = {"grant_type": GRANT, "subject_token": issuer.token("crowd"), "subject_token_type": f"{TYPE}jwt"}
    async with httpx2.AsyncClient(base_url=trusting.url, timeout=60, verify=False) as http:
        answers = await asyncio.gather(*(http.post("/auth/token", data=form) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert issuer.asked == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_issuer_that_misbehaves_is_unavailable_and_nothing_more(
    trusting: Node, issuers: dict[str, Issuer], way: str
) -> None:
    issuer, elsewhere = issuers[way], issuers["elsewhere"]
    resident = trusting.resident()
    match way:
        case "down":
            issuer.down()
        case "slow":
            issuer.delay = 8
        case "huge":
            issuer.body = b'{"keys":[' + b" " * 50_000_000 + b"]}"
        case "compressed":
            issuer.headers = {"Content-Encoding": "gzip"}
        case "redirect":
            issuer.status, issuer.headers = 302, {"Location": elsewhere.jwks_url}
        case "error":
            issuer.status = 500
        case "html":
            issuer.body = b"<html>Please sign in</html>"
        case "empty":
            issuer.body = b""
        case "deep":
            issuer.body = b"[" * 200_000
        case "endless":
            issuer.headers = {"Content-Length": "1000000"}
    answer = exchange(trusting, issuer.token(way))
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "issuer_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert issuer.url not in answer.text
    assert elsewhere.asked == 0
    assert trusting.resident() - resident < 30 * 1024 * 1024
    signed_in(trusting, issuers[""].token("somebody-else"))
    # It is asked again, and then it works.
    issuer.status, issuer.headers, issuer.delay, issuer.body = 200, {}, 0.0, None
    if way == "down":
        issuer.up()
    eventually(lambda: exchange(trusting, issuer.token(way)).status_code == 200, what="the keys")
    assert '"the keys of an issuer cannot be fetched"' in trusting.log_text()


def test_an_issuer_that_goes_away_later_takes_nobody_with_it(trusting: Node, issuers: dict[str, Issuer]) -> None:
    issuer = issuers["leaving"]
    signed_in(trusting, issuer.token("stayer"))
    issuer.down()
    signed_in(trusting, issuer.token("stayer"))


def test_the_keys_of_an_issuer_rotate(trusting: Node, issuers: dict[str, Issuer]) -> None:
    """A key that is not known is looked for, half a minute after the last look; the old one is taken back with that."""
    issuer, new = issuers["rotating"], IssuerKey("new", "RS256")
    assert issuer.asked == 1
    issuer.keys, old = [new], issuer.keys[0]
    token = issuer.token("rotating", key=new)
    eventually(lambda: exchange(trusting, token).status_code == 200, within=60, what="the new key")
    assert issuer.asked == 2
    refused(trusting, issuer.token("rotating", key=old))


# -- the setting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"issuer": "https://idp.example"}, "entry 1: jwks_url: is missing"),
        ({"issuer": "a", "jwks_url": "http://idp.example/keys", "audience": "n"}, "entry 1: jwks_url: must begin"),
        ({"issuer": "notification-gateway", "jwks_url": "https://a", "audience": "n"}, "holds GATEWAY_ISSUER"),
    ],
    ids=str,
)
def test_a_trusted_issuer_that_is_unsafe_is_a_setting_that_is_named(entry: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        read_settings({"GATEWAY_TRUSTED_ISSUERS": settings(entry)})
    assert str(refusal.value).startswith("GATEWAY_TRUSTED_ISSUERS: ")
    assert says in str(refusal.value)


def test_CFG_01_a_trusted_issuer_that_is_unsafe_stops_the_start(tmp_path: Path) -> None:
    node = Node(tmp_path, trusted_issuers='[{"issuer": "https://idp.example", "jkws_url": "https://idp.example/keys"}]')
    status, _, complained = node.command("serve", within=180)
    assert status == 2
    assert complained.startswith("gateway: GATEWAY_TRUSTED_ISSUERS: entry 1: 'jkws_url' is not a member")
    assert len(complained.splitlines()) == 1


def cli(node: Node, *arguments: str) -> str:
    status, said, complained = node.command(*arguments, within=180)
    assert status == 0, complained
    return said
