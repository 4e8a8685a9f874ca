"""The examples of ``deploy/`` fit the gateway: no token in a log, times longer than its own. Starts none of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.pulse import ANSWER_WITHIN
from gateway.settings import read_settings
from gateway.sockets.server import GRACE
from gateway.sockets.wire import WireLimits

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = read_settings({})


def deploy(name: str) -> str:
    """The file without its comments."""
    return re.sub(r"(^|\s)#.*", "", (ROOT / "deploy" / name).read_text("utf-8"))


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


def test_no_log_of_nginx_quotes_the_query_with_the_token() -> None:
    text = deploy("nginx.conf")
    (formats,) = re.findall(r"log_format \w+ (.*?);", text, re.DOTALL)
    assert "$uri" in formats
    assert re.findall(r"\$(?:request|request_uri|args|query_string|arg_\w+|http_referer)\b(?!_)", formats) == []
    assert re.findall(r"access_log \S+ (\w+);", text) == ["gateway"]
    assert re.findall(r"error_log \S+ (\w+);", text) == ["crit"], "an entry of level error quotes the request line"


def test_no_log_of_haproxy_quotes_the_query_with_the_token() -> None:
    text = deploy("haproxy.cfg")
    (line,) = re.findall(r"log-format '(.*)'", text)
    assert re.findall(r"%(?:HU|HQ|r|hr|hs|HPO?Q)\b|%\{\+Q\}r", line) == []
    assert "option httplog" not in text
    assert re.search(r"set-var\(txn\.path\) path\n", text)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("nginx.conf", r"\^/\(ws.*?proxy_read_timeout (\d+)s"), ("haproxy.cfg", r"timeout tunnel\s+(\d+)s")],
)
def test_a_proxy_waits_longer_than_the_heartbeat_and_its_answer(name: str, pattern: str) -> None:
    assert number(f"(?s){pattern}", deploy(name)) > DEFAULTS.heartbeat + ANSWER_WITHIN


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("nginx.conf", r"keepalive_timeout (\d+)s"), ("haproxy.cfg", r"pool-purge-delay (\d+)s")],
)
def test_a_proxy_lets_go_of_idle_connections_before_the_gateway_does(name: str, pattern: str) -> None:
    assert number(pattern, deploy(name)) < WireLimits().keep_alive


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg"])
def test_a_proxy_replaces_what_a_client_says_about_its_address(name: str) -> None:
    text = deploy(name)
    assert re.search(r"X-Forwarded-For (\$remote_addr;|%\[src\])", text)
    assert "proxy_add_x_forwarded_for" not in text
    assert "option forwardfor" not in text


def test_nobody_is_killed_in_the_middle_of_a_drain() -> None:
    needed = DEFAULTS.drain_grace + GRACE
    kubernetes = deploy("kubernetes.yaml")
    waits = number(r'"sleep", "(\d+)"', kubernetes)
    assert number(r"terminationGracePeriodSeconds: (\d+)", kubernetes) > waits + needed
    assert number(r"TimeoutStopSec=(\d+)", deploy("gateway.service")) > needed
    assert number(r"stop_grace_period: (\d+)s", (ROOT / "compose.yaml").read_text("utf-8")) > needed


def test_a_process_may_open_as_many_files_as_it_takes_sockets() -> None:
    assert number(r"LimitNOFILE=(\d+)", deploy("gateway.service")) > DEFAULTS.connections_max
    assert number(r"nofile: (\d+)", (ROOT / "compose.yaml").read_text("utf-8")) > DEFAULTS.connections_max


def test_a_database_that_is_away_is_no_reason_to_kill_a_node() -> None:
    text = deploy("kubernetes.yaml")
    assert re.search(r"livenessProbe:\s+httpGet: \{path: /healthz,", text)
    assert re.search(r"readinessProbe:\s+httpGet: \{path: /readyz,", text)
    assert "enableServiceLinks: false" in text, "or the pods are given a GATEWAY_PORT that is none"
