"""What pushing takes and answers, said to readers of the OpenAPI document. Checks nothing: ``pushes.py`` does.

The lean routes have no signature it could be read from. The limits are those of ``pushes.py``; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.api.pushes import (
    DEFAULT_TTL,
    MAX_BATCH,
    MAX_CATEGORY,
    MAX_DATA,
    MAX_ID,
    MAX_KEY,
    MAX_TEXT,
    MAX_TITLE,
    MAX_TTL,
    MAX_USERS,
    PRIORITIES,
)

_CONTENT: dict[str, Any] = {
    "title": {"type": "string", "minLength": 1, "maxLength": MAX_TITLE},
    "body": {"type": ["string", "null"], "maxLength": MAX_TEXT, "default": ""},
    "data": {"type": ["object", "null"], "description": f"At most {MAX_DATA} bytes of JSON.", "default": {}},
    "category": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_CATEGORY},
    "priority": {"type": ["string", "null"], "enum": [*PRIORITIES, None], "default": "normal"},
    "ttl": {
        "type": ["integer", "null"],
        "minimum": 0,
        "maximum": MAX_TTL,
        "default": DEFAULT_TTL,
        "description": "Seconds. 0: shown to whoever is connected now, stored nowhere.",
    },
    "collapse_key": {"type": "null", "description": "Not supported yet."},
    "deliver_at": {"type": "null", "description": "Not supported yet."},
}
_USER_ID = {"type": "string", "minLength": 1, "maxLength": MAX_ID}

PUSH_BODY: dict[str, Any] = {
    "type": "object",
    "description": "Exactly one target: `user_id`, `user_ids` or `everyone` (with `ttl` 0 only).",
    "required": ["title"],
    "additionalProperties": False,
    "properties": {
        "user_id": {**_USER_ID, "type": ["string", "null"]},
        "user_ids": {"type": ["array", "null"], "items": _USER_ID, "minItems": 1, "maxItems": MAX_USERS},
        "everyone": {"type": ["boolean", "null"], "enum": [True, None]},
        "topic": {"type": "null", "description": "Not supported yet."},
        **_CONTENT,
    },
}
ITEM: dict[str, Any] = {
    "type": "object",
    "required": ["user_id", "title"],
    "additionalProperties": False,
    "properties": {
        "user_id": _USER_ID,
        "idempotency_key": {"type": ["string", "null"], "pattern": r"^[\x21-\x7e]{1,255}$"},
        **_CONTENT,
    },
}
EXAMPLE: dict[str, Any] = {
    "user_id": "42",
    "title": "Order shipped",
    "body": "Arrives Friday",
    "data": {"order": 1234},
    "category": "orders",
    "priority": "normal",
    "ttl": 86400,
}
BATCH: dict[str, Any] = {
    "type": "object",
    "required": ["notifications"],
    "additionalProperties": False,
    "properties": {"notifications": {"type": "array", "maxItems": MAX_BATCH, "items": ITEM}},
}
BATCH_EXAMPLE: dict[str, Any] = {"notifications": [{**EXAMPLE, "idempotency_key": "order-1234-shipped"}]}

_INSTANT = {"type": "string", "format": "date-time"}
_ONLINE = {"type": ["boolean", "null"], "description": "Whether any device was connected; null: cannot be known now."}
_ONLINE_COUNT = {"type": ["integer", "null"], "description": "Users online, on all nodes; null: cannot be known now."}
STORED: dict[str, Any] = {
    "type": "object",
    "required": ["id", "user_id", "seq", "created_at", "expires_at", "online"],
    "properties": {
        "id": {"type": "string"},
        "user_id": {"type": "string"},
        "seq": {"type": "integer"},
        "created_at": _INSTANT,
        "expires_at": _INSTANT,
        "online": _ONLINE,
    },
}
RESULTS: dict[str, Any] = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["status"],
                "properties": {"status": {"type": "integer"}, **STORED["properties"]},
                "description": "What a push by itself would have been told, with its status; or a problem.",
            },
        }
    },
}
PASSED: dict[str, Any] = {
    "type": "object",
    "required": ["id"],
    "properties": {"id": {"type": "string"}, "online": _ONLINE, "online_count": _ONLINE_COUNT},
}
RECEIPT: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{name: STORED["properties"][name] for name in ("id", "user_id", "created_at", "expires_at")},
        "seq": {"type": ["integer", "null"]},
        "state": {"enum": ["scheduled", "stored", "acknowledged", "read", "expired", "withdrawn"]},
        "acknowledged_at": {**_INSTANT, "type": ["string", "null"]},
        "read_at": {**_INSTANT, "type": ["string", "null"]},
    },
}
REPLAYED = {"Idempotency-Replayed": {"schema": {"type": "string"}, "description": "`true` for a repeat."}}
KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
    "description": "Remembered for 24 hours, in one namespace per client. A retry with it stores nothing twice.",
}


def answers(schema: Mapping[str, Any], description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def takes(schema: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


ID_PARAMETER = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
