"""An example of every body that comes in and of every answer that has one, for the OpenAPI document. Data only.

They tell one story: the shop pushes to Alice, who has the id 42. A test holds each to its schema.
"""

from __future__ import annotations

from typing import Any

from gateway.api.push_schemas import BATCH_EXAMPLE, EXAMPLE

_ADMIN = "admin"
_CLIENT = "c~01ab3c5e0b6ea033c3ce538dec545f10"
_SECRET = "PLU-SAYuTIcKOpNNk2i6psAK6SY5HvbU73RbaGlsaPw"  # noqa: S105 - nobody's
_SESSION = "01a1f9ff5a1e4c0e8f1d2b7c9e3a6d54"
_ID = "01a1f9ff597f541a55df52828d55ebe5"
_EPOCH = "01a1f9ff87ff3f7ff0b2e80aebe9fe85"
_TOKEN_ID = "01a1f9ff6f0d2c8b7a4e9d1c3b5f8e60"  # noqa: S105 - a name
_NODE = "host-a-1234"
_ACCESS = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjIwMjYiLCJ0eXAiOiJhdCtqd3QifQ.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl"
_REFRESH = "01a1f9ff5a1e4c0e8f1d2b7c9e3a6d54.0.J7l0kF3m2p9QxYvT4s6wRzUe1aCbDgHiKoNr5u8Wb-0"
_TICKET = "t~MDFhMWY5ZmY1YTFlNGMwZQ.Zx3nQ0v9Jw1rT5yUa7Lk2BmDcFgHjKoP4s6wRzUe1aC"
_THEN, _NOW, _LATER = "2026-11-20T17:26:58.823Z", "2026-11-20T17:27:03.807Z", "2026-12-20T17:27:03.807Z"

_USER = {"id": "42", "username": "alice", "role": "user", "disabled": False, "created_at": _THEN}
_SHOP = {
    "client_id": _CLIENT,
    "name": "shop",
    "scopes": ["notifications:write"],
    "created_at": _THEN,
    "rotated_at": None,
}
_LOOK = {
    "id": _SESSION,
    "user_id": "42",
    "device": "Pixel 9",
    "address": "203.0.113.7",
    "created_at": _THEN,
    "refreshed_at": _NOW,
    "expires_at": _LATER,
}
_TOKENS = {
    "access_token": _ACCESS,
    "token_type": "Bearer",
    "expires_in": 900,
    "refresh_token": _REFRESH,
    "refresh_expires_in": 2592000,
    "scope": "inbox",
}
_STORED = {"id": _ID, "user_id": "42", "seq": 1, "created_at": _NOW, "expires_at": _LATER, "online": True}
_UNKNOWN = {
    "type": "/problems/unknown_user",
    "title": "Unknown user",
    "status": 404,
    "detail": "There is no such user.",
    "code": "unknown_user",
    "user_id": "43",
}
_NOTIFICATION = {
    "seq": 1,
    "id": _ID,
    "title": "Order shipped",
    "body": "Arrives Friday",
    "data": {"order": 1234},
    "category": "orders",
    "priority": "normal",
    "created_at": _NOW,
    "expires_at": _LATER,
}

BODIES: dict[str, Any] = {
    "POST /notifications": EXAMPLE,
    "POST /notifications/batch": BATCH_EXAMPLE,
    "POST /inbox/read": {"up_to": 1},
    "POST /inbox/ack": {"seq": 1, "epoch": _EPOCH},
    "POST /auth/login": {"username": "alice", "password": "correct horse 42", "device": "Pixel 9"},
    "POST /auth/refresh": {"refresh_token": _REFRESH},
    "PUT /auth/password": {"current_password": "correct horse 42", "new_password": "battery staple 43"},
    "POST /auth/token": {
        "grant_type": "client_credentials",
        "client_id": _CLIENT,
        "client_secret": _SECRET,
        "scope": "notifications:write",
    },
    "POST /auth/revoke": {"token": _REFRESH, "token_type_hint": "refresh_token"},
    "POST /auth/introspect": {"token": _ACCESS},
    "POST /admin/users": {"id": "42", "username": "alice", "password": "correct horse 42", "role": "user"},
    "PATCH /admin/users/{id}": {"disabled": True},
    "PUT /admin/users/{id}/password": {"password": "battery staple 43"},
    "POST /admin/clients": {"name": "shop", "scopes": ["notifications:write"]},
    "POST /admin/revocations": {"session": _SESSION, "reason": "lost phone"},
}
"""Method and path → what is sent."""

ANSWERS: dict[str, dict[int, Any]] = {
    "POST /notifications": {
        200: {"results": [{"status": 201, **_STORED}, _UNKNOWN]},
        201: _STORED,
        202: {"id": _ID, "online": True},
    },
    "POST /notifications/batch": {200: {"results": [{"status": 201, **_STORED}, _UNKNOWN]}},
    "GET /notifications/{id}": {
        200: {
            **{name: value for name, value in _STORED.items() if name != "online"},
            "state": "acknowledged",
            "acknowledged_at": _NOW,
            "read_at": None,
        }
    },
    "GET /inbox": {
        200: {"items": [_NOTIFICATION], "head": 1, "rev": 0, "epoch": _EPOCH, "unread": 1, "next": None},
    },
    "GET /inbox/{id}": {200: {**_NOTIFICATION, "read_at": _NOW}},
    "POST /inbox/read": {200: {"unread": 0, "rev": 1}},
    "POST /auth/login": {200: _TOKENS},
    "POST /auth/refresh": {200: _TOKENS},
    "POST /auth/token": {
        200: {"access_token": _ACCESS, "token_type": "Bearer", "expires_in": 900, "scope": "notifications:write"},
    },
    "POST /auth/introspect": {
        200: {
            "active": True,
            "token_type": "Bearer",
            "scope": "inbox",
            "client_id": "c~gateway",
            "sub": "42",
            "aud": "notification-gateway",
            "iss": "notification-gateway",
            "jti": _TOKEN_ID,
            "iat": 1795195618,
            "nbf": 1795195618,
            "exp": 1795196518,
            "sid": _SESSION,
            "username": "alice",
        }
    },
    "POST /auth/ticket": {201: {"ticket": _TICKET, "expires_in": 30}},
    "GET /auth/me": {
        200: {
            "id": "42",
            "username": "alice",
            "role": "user",
            "session": _SESSION,
            "scope": "inbox",
            "token_expires_at": _LATER,
        }
    },
    "GET /auth/sessions": {200: {"items": [{**_LOOK, "current": True}], "next": None}},
    "GET /.well-known/jwks.json": {
        200: {
            "keys": [
                {
                    "kty": "EC",
                    "kid": "2026-11",
                    "alg": "ES256",
                    "use": "sig",
                    "crv": "P-256",
                    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
                }
            ]
        }
    },
    "GET /healthz": {200: {"status": "ok"}},
    "GET /readyz": {200: {"status": "ready"}},
    "GET /metrics": {200: "# TYPE gateway_connections gauge\ngateway_connections 1.0\n"},
    "GET /admin/users": {200: {"items": [_USER], "next": None}},
    "POST /admin/users": {201: _USER},
    "GET /admin/users/{id}": {200: _USER},
    "PATCH /admin/users/{id}": {200: {**_USER, "disabled": True}},
    "GET /admin/clients": {200: {"items": [_SHOP], "next": None}},
    "POST /admin/clients": {201: {**_SHOP, "client_secret": _SECRET}},
    "POST /admin/clients/{client_id}/rotate": {200: {**_SHOP, "rotated_at": _NOW, "client_secret": _SECRET}},
    "POST /admin/revocations": {201: {"id": _TOKEN_ID, "connections_closed": 1}},
    "GET /admin/revocations": {
        200: {
            "items": [
                {
                    "id": _TOKEN_ID,
                    "session": _SESSION,
                    "user_id": None,
                    "issued_before": None,
                    "jti": None,
                    "client_id": None,
                    "reason": "lost phone",
                    "actor": _ADMIN,
                    "created_at": _NOW,
                    "until": _LATER,
                }
            ],
            "next": None,
        }
    },
    "GET /admin/sessions": {200: {"items": [{**_LOOK, "current": False}], "next": None}},
    "GET /admin/connections": {
        200: {
            "items": [
                {
                    "id": _ID,
                    "user_id": "42",
                    "session": _SESSION,
                    "node": _NODE,
                    "transport": "ws",
                    "address": "203.0.113.7",
                    "opened_at": _NOW,
                    "token_expires_at": _LATER,
                    "behind": False,
                }
            ],
            "next": None,
            "missing": [],
        }
    },
    "GET /admin/presence": {
        200: {
            "items": [
                {"user_id": "42", "online": True, "since": _NOW, "devices": 1, "connections": 1, "nodes": [_NODE]},
            ]
        }
    },
    "GET /admin/presence/summary": {
        200: {
            "users": 1,
            "connections": 1,
            "nodes": [{"node": _NODE, "users": 1, "connections": 1, "since": _THEN}],
            "complete": True,
        }
    },
    "GET /admin/audit": {
        200: {
            "items": [
                {
                    "number": 7,
                    "at": _NOW,
                    "actor": _ADMIN,
                    "action": "revoked",
                    "target": _SESSION,
                    "detail": {"reason": "lost phone"},
                    "address": "203.0.113.8",
                    "request_id": "01a1f9ff7e8e8dde9fd2b7cfb67a91cd",
                }
            ],
            "next": None,
        }
    },
}
"""Method and path → status → what comes back."""
