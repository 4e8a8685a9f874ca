"""``deploy/nginx.conf`` in front of a real gateway, with the settings of docs/guides/nginx.md: it does what they say.

Skipped where there is no nginx: what the file says is compared with the gateway everywhere, in tests/test_deploy.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from freeport import free_port
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin
from wire import ADMIN_PASSWORD, ROOT, Node, eventually

PROGRAM = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
OPENSSL = shutil.which("openssl")
HOST = "push.example.com"
pytestmark = pytest.mark.skipif(
    (PROGRAM is None or OPENSSL is None) and not os.environ.get("CI"),
    reason="no nginx, or no openssl, on this machine; on CI that is a failure",
)


@dataclass
class Front:
    """nginx, its access log, and the node behind it."""

    node: Node
    port: int
    plain: int
    log: Path
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def configuration(directory: Path, node: Node, port: int, plain: int) -> str:
    """The file as it is, but for what its reader has to put in."""
    text = (ROOT / "deploy" / "nginx.conf").read_text("utf-8")
    tls = directory / "tls"
    for old, new in {
        "listen 80 default_server;": f"listen 127.0.0.1:{plain} default_server;",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/tls/fullchain.pem": f"{tls}.crt",
        "/etc/nginx/tls/privkey.pem": f"{tls}.key",
        "notify.example.com": HOST,
        "10.0.0.11:8000": f"127.0.0.1:{node.port}",
        "10.0.0.12:8000": f"127.0.0.1:{free_port()}",  # a node that is not there
        "/dev/stdout": f"{directory}/access.log",
        "error_log stderr": f"error_log {directory}/error.log",
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "http {": "http {\n"
        + "".join(
            f"    {kind}_temp_path {directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
        "worker_processes auto;": "worker_processes 1; daemon off;",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def front(tmp_path: Path, start: Callable[..., Node]) -> Iterator[Front]:
    said = (ROOT / "docs" / "guides" / "nginx.md").read_text("utf-8")
    settings = {name.lower(): value for name, value in re.findall(r"^GATEWAY_(\w+)=(\S+)", said, re.MULTILINE)}
    assert settings.keys() == {"forwarded_allow_ips", "require_tls", "allowed_hosts", "allowed_origins"}
    node = start(**settings | {"forwarded_allow_ips": "127.0.0.1"})
    assert OPENSSL is not None
    assert PROGRAM is not None
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
         "-keyout", f"{tmp_path}/tls.key", "-out", f"{tmp_path}/tls.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    port, plain = free_port(), free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(configuration(tmp_path, node, port, plain))
    command = [PROGRAM, "-c", str(config), "-p", str(tmp_path)]
    looked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert looked.returncode == 0, looked.stderr
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    trust = ssl.create_default_context(cafile=f"{tmp_path}/tls.crt")
    trust.check_hostname = False  # asked for by its address, which is in no certificate
    try:
        front = Front(node, port, plain, tmp_path / "access.log", trust)
        eventually(lambda: listens(front), what="nginx")
        yield front
    finally:
        process.terminate()
        process.wait(10)


def listens(front: Front) -> bool:
    try:
        return httpx2.get(f"{front.url}/healthz", verify=front.trust, headers={"Host": HOST}).status_code == 200
    except httpx2.ConnectError:
        return False


def test_a_gateway_behind_nginx(front: Front) -> None:
    forged = {"Host": HOST, "X-Forwarded-For": "198.51.100.7", "Forwarded": "for=198.51.100.7"}
    with httpx2.Client(base_url=front.url, verify=front.trust, headers=forged, timeout=30, trust_env=False) as client:

        def ask(method: str, path: str, status: int = 200, *, token: str = "", **more: object) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = client.request(method, path, headers=headers, **more)  # type: ignore[arg-type]
            assert answer.status_code == status, (path, answer.status_code, answer.text)
            return answer

        admin = ask("POST", "/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD}).json()[
            "access_token"
        ]
        assert [one["address"] for one in ask("GET", "/auth/sessions", token=admin).json()["items"]] == ["127.0.0.1"]
        ask("GET", "/metrics", 404, token=admin)
        assert ask("POST", "/auth/login", 413, content=b"x" * 70_000).json()["code"] == "payload_too_large"
        around = httpx2.get(f"{front.node.url}/auth/me", headers={"Host": HOST})
        assert around.json()["code"] == "tls_required", "who finds a way around nginx"
        moved = httpx2.get(f"http://127.0.0.1:{front.plain}/inbox", headers={"Host": HOST})
        assert (moved.status_code, moved.headers["Location"]) == (301, f"https://{HOST}/inbox")

        def listening(token: str, origin: str) -> ClientConnection:
            url = f"wss://{HOST}/ws?token={token}"
            sock = socket.create_connection(("127.0.0.1", front.port))
            return connect(url, sock=sock, ssl=front.trust, origin=Origin(origin), proxy=None)

        query = f"/events?token={admin}"
        with listening(admin, "https://www.example.com") as listener, client.stream("GET", query) as stream:
            assert json.loads(listener.recv(10))["type"] == "hello"
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: hello"
            me = ask("GET", "/auth/me", token=admin).json()["id"]
            ask("POST", "/notifications", 201, token=admin, json={"user_id": me, "title": "through"})
            assert json.loads(listener.recv(10))["title"] == "through"
            assert next(line for line in lines if "through" in line), "not gathered until there is more"
        with pytest.raises(InvalidStatus) as refused:
            listening(admin, "https://evil.example")
        assert refused.value.response.status_code == 403
    log = eventually(lambda: (text := front.log.read_text()).count("/events") and text)
    assert all(json.loads(line)["address"] == "127.0.0.1" for line in log.splitlines())
    assert admin not in log
    assert "token" not in log
