"""Peers that only fan out: nchan on nginx, and the bare uvloop loop. They store nothing and let anybody in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.servers import HERE, Server, clean_environment, free_port, running

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
"""Where Debian's libnginx-mod-nchan puts it."""
CONFIGURATION = """
daemon off; master_process off; worker_processes 1; {user} pid {home}/nginx.pid; error_log stderr crit;
load_module {module};
events {{ worker_connections 19000; multi_accept on; }}
http {{
  access_log off; keepalive_requests 1000000; nchan_shared_memory_size 256M;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /readyz {{ return 200 ready; }}
    location = /ws {{ nchan_subscriber websocket; nchan_channel_id all; nchan_subscriber_first_message newest; }}
    location = /everyone {{
      nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 100; nchan_message_timeout 30s;
    }}
  }}
}}
"""


def nchan_is_missing() -> bool:
    return _nginx() is None or not MODULE.exists()


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextmanager
def nchan(directory: Path) -> Iterator[Server]:
    port, home = free_port(), directory / "nchan"
    home.mkdir(exist_ok=True)
    file = home / "nginx.conf"
    # Started by root it would become somebody else, who may not write into the directory.
    user = "user root;" if Path("/proc/self").stat().st_uid == 0 else ""
    file.write_text(CONFIGURATION.format(home=home, port=port, module=MODULE, user=user))
    command = [str(_nginx()), "-p", str(home), "-c", str(file)]
    with running("nchan", command, clean_environment(), port=port) as server:
        yield server


def bare_loop() -> AbstractContextManager[Server]:
    port = free_port()
    environment = clean_environment(PYTHONPATH=str(HERE.parent))
    return running("bare loop", [sys.executable, "-m", "benchmarks.bare_loop", str(port)], environment, port=port)
