"""``python -m gateway``: the same as the ``gateway`` command. Nothing else happens here."""

from __future__ import annotations

from gateway.cli import main

main()
