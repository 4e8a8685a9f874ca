"""What the gateway counts, for Prometheus. The only user of its client library; holds no user data and no token."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

EXPOSITION = "text/plain; version=1.0.0; charset=utf-8"
"""The text format that ``exposition`` writes."""


class Metrics:
    """One registry a gateway, so that several can live in one process (tests do)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self.stored = Counter("gateway_notifications_stored", "Notifications committed to an inbox.", registry=registry)
        self.passed = Counter("gateway_notifications_passed", "Pushes with ttl 0.", registry=registry)
        self.dropped = Counter(
            "gateway_passing_dropped", "Pushes with ttl 0 that found too many waiting.", registry=registry
        )
        self.written = Counter("gateway_frames_written", "Notification frames written to sockets.", registry=registry)
        self.caught_up = Counter("gateway_catch_up_pages", "Pages read from the inbox for a socket.", registry=registry)
        self.opened = Counter("gateway_connections_opened", "Sockets accepted.", registry=registry)
        self._closed = Counter("gateway_connections_closed", "Sockets ended.", ["reason"], registry=registry)
        self._refused = Counter("gateway_upgrades_refused", "Sockets refused.", ["reason"], registry=registry)
        self._limited = Counter("gateway_rate_limited", "Refused for being over a rate.", ["policy"], registry=registry)
        self._connections = Gauge("gateway_connections", "Open sockets.", registry=registry)
        self._users = Gauge("gateway_users_online", "Users with an open socket here.", registry=registry)
        self._bans = Gauge("gateway_revocations_in_force", "Rules of the denylist.", registry=registry)
        self.janitor = Counter("gateway_janitor_rows", "Rows that left the database.", ["kind"], registry=registry)
        self.loop_lag = Histogram(
            "gateway_event_loop_lag_seconds", "How late the event loop came to a timer.", registry=registry,
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )  # fmt: skip
        self.delivery = Histogram(
            "gateway_delivery_seconds", "From a push's arrival until the sockets here had it, of one a millisecond.",
            registry=registry, buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )  # fmt: skip
        self.failed = Counter("gateway_http_failed", "Requests answered 5xx.", registry=registry)
        self._node = Gauge("gateway_node_info", "Which node this is.", ["node"], registry=registry)
        self._lag_max = Gauge("gateway_event_loop_lag_max_seconds", "The latest of the last minute.", registry=registry)
        self._tasks = Gauge("gateway_tasks", "Coroutines under way.", registry=registry)
        self.gc_pause = Gauge("gateway_gc_pause_seconds_max", "Longest garbage collection.", registry=registry)
        self.bus_sent = Counter("gateway_bus_messages_sent", "Messages the bus has taken.", registry=registry)
        self.bus_received = Counter("gateway_bus_signals_received", "Signals of other nodes.", registry=registry)
        self.bus_resynced = Counter(
            "gateway_bus_resyncs", "Users looked at again by the bus's word.", registry=registry
        )
        self._bus_dropped = Counter(
            "gateway_bus_messages_dropped", "Messages lost or refused.", ["reason"], registry=registry
        )
        self._bus_up = Gauge("gateway_bus_up", "Whether hints travel between nodes.", registry=registry)
        self._closed_children: dict[str, Counter] = {}

    def name(self, node: str) -> None:
        """Whose numbers these are."""
        self._node.labels(node).set(1)

    def closed(self, reason: str) -> None:
        """A socket ended; ``reason`` from the close table."""
        child = self._closed_children.get(reason)
        if child is None:
            child = self._closed_children[reason] = self._closed.labels(reason)
        child.inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def limited(self, policy: str) -> None:
        """A limit was hit; ``policy`` is its name."""
        self._limited.labels(policy).inc()

    def bus_dropped(self, reason: str, amount: int) -> None:
        """Messages of the bus that were not sent, or were not believed."""
        self._bus_dropped.labels(reason).inc(amount)

    def watch_lag(self, worst: Callable[[], float]) -> None:
        """``worst`` in seconds; asked when it is read, by whichever thread."""
        self._lag_max.set_function(worst)

    def watch_tasks(self, running: Callable[[], int]) -> None:
        """``running`` is asked when it is read, by whichever thread."""
        self._tasks.set_function(running)

    def watch_bus(self, up: Callable[[], bool]) -> None:
        self._bus_up.set_function(up)

    def watch(self, *, connections: Callable[[], int], users: Callable[[], int], bans: Callable[[], int]) -> None:
        """Numbers that are asked for when they are read."""
        self._connections.set_function(connections)
        self._users.set_function(users)
        self._bans.set_function(bans)

    def serve(self, port: int) -> Callable[[], None]:
        """Answer ``/metrics`` on a port of its own, on the loopback address; what stops it. Raises OSError if taken."""
        server, thread = start_http_server(port, addr="127.0.0.1", registry=self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
