"""A page of the inbox, written to one transport: many frames at a time, and no more than it takes. Reads nothing."""

from __future__ import annotations

from collections.abc import Iterator

from gateway import frames
from gateway.feed import Gap
from gateway.metrics import Metrics
from gateway.model import Entry
from gateway.ports import Transport

TOGETHER = 16 * 1024
"""Bytes that are written in one go: one system call, which costs more than everything else about a frame."""


def replay(items: Iterator[Entry | Gap], transport: Transport, metrics: Metrics) -> int:
    """Write ``items`` while the transport is writable; the bytes written. What was taken from ``items`` is written, so
    whoever counts it as told is right, however many are left."""
    sent = size = told = 0
    due: list[bytes] = []
    for item in items:
        if isinstance(item, Gap):
            payload = transport.encode(frames.gap(item.first, item.last))
        else:
            payload = transport.encode(frames.notification(item))
            told += 1
        due.append(payload)
        size += len(payload)
        if size >= TOGETHER:
            transport.write(*due)
            sent, size, due = sent + size, 0, []
            if not transport.writable:
                break
    if due:
        transport.write(*due)
    metrics.written.inc(told)
    return sent + size
