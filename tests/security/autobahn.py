"""The Autobahn test suite, sections 1–7, 9 and 10, against the gateway's protocol classes. No part of ``make test``.

It is written in Python 2: whoever has one runs it by hand, and docs/security.md claims no result of it. What RFC 6455
asks is shown without it, by frames of our own (WSF-01 … WSF-12).

    python2.7 -m pip install autobahntestsuite
    PYTHONPATH=tests/support .venv/bin/python -m tests.security.autobahn python2.7

Messages are as large here as the suite wants them, which those of the gateway may not be. Otherwise than it expects, on
purpose: a binary message is refused (1003), as WSF-12 asks; and 7.1.5, a close in the middle of a message, is answered
with 1002 by the library whose rules these are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rawpeer import EchoServer

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
START = "import sys; sys.argv = {words!r}; from autobahntestsuite.wstest import run; run()"
OURS = {"7.1.5": 1002}


def main(python: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        server = EchoServer(place / "log", max_size=32 << 20, max_fragments=100_000)
        try:
            results = run(python, place, f"ws://127.0.0.1:{server.port}/echo")
        finally:
            server.stop()
    otherwise = {case: result for case, result in results.items() if not expected(case, result)}
    binary = sum(result["remoteCloseCode"] == 1003 for result in results.values())
    sys.stdout.write(f"{len(results)} cases, {binary} of them binary; otherwise than expected: {otherwise or 'none'}\n")
    return bool(otherwise) or not results


def expected(case: str, result: dict[str, Any]) -> bool:
    if {result["behavior"], result["behaviorClose"]} <= GOOD:
        return True
    return bool(result["remoteCloseCode"] == OURS.get(case, 1003))


def run(python: str, place: Path, url: str) -> dict[str, dict[str, Any]]:
    """What the suite found, by case."""
    spec = {
        "outdir": str(place / "report"), "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {},
        "servers": [{"agent": "gateway", "url": url, "options": {"version": 18}}],
    }  # fmt: skip
    (place / "spec.json").write_text(json.dumps(spec))
    words = ["wstest", "-m", "fuzzingclient", "-s", str(place / "spec.json")]
    subprocess.run([python, "-c", START.format(words=words)], cwd=place, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads((place / "report" / "index.json").read_text())["gateway"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
