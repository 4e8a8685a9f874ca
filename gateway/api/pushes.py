"""What a push says, read and rendered: a parsed JSON value → a ``Wanted``. No HTTP, no I/O.

Written by hand, because a batch brings a thousand of them: a pydantic model with the same rules took several times as
long. ``push_schemas.py`` says the rules for the OpenAPI document, from the same limits.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.errors import Invalid
from gateway.frames import content

MAX_TITLE, MAX_TEXT, MAX_DATA, MAX_CATEGORY, MAX_ID, MAX_KEY = 200, 4000, 4096, 64, 64, 255
MAX_USERS = MAX_BATCH = 1000
MAX_TTL, DEFAULT_TTL = 90 * 86_400, 30 * 86_400
PRIORITIES = ("low", "normal", "high")
KEY = re.compile(r"[\x21-\x7e]{1,255}")
"""An idempotency key: visible ASCII."""

_COMMON = frozenset({"title", "body", "data", "category", "priority", "ttl", "collapse_key", "deliver_at"})
_TARGETS = ("user_id", "user_ids", "topic", "everyone")
_FIELDS = _COMMON | {*_TARGETS}
_ITEM_FIELDS = _COMMON | {"user_id", "idempotency_key"}
_LATER = ("topic", "collapse_key", "deliver_at")
"""In the contract, not in this version."""

Errors = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A push that can be taken. ``recipients`` None: everyone. ``many``: they were asked for as ``user_ids``."""

    recipients: tuple[str, ...] | None
    many: bool
    content: str
    category: str | None
    ttl: int
    key: tuple[str, bytes] | None


def read_push(body: Any, *, key: str | None) -> Wanted:
    """``body`` of ``POST /notifications`` with its Idempotency-Key, already checked. Raises Invalid."""
    errors: Errors = []
    if type(body) is not dict:
        raise Invalid(errors=[("", "has to be an object")])
    if not body.keys() <= _FIELDS:
        errors += [(f"/{_escaped(name)}", "unknown field") for name in body if name not in _FIELDS]
    given = [name for name in _TARGETS if body.get(name) is not None]
    recipients: tuple[str, ...] | None = None
    if len(given) != 1:
        errors.append(("", f"has exactly one target of {', '.join(_TARGETS)}"))
    elif given[0] == "user_id":
        recipients = _user_id(body["user_id"], errors)
    elif given[0] == "user_ids":
        recipients = _user_ids(body["user_ids"], errors)
    elif given[0] == "everyone" and body["everyone"] is not True:
        errors.append(("/everyone", "has to be true"))
    rendered, category, ttl = _content(body, errors)
    _finish(body, errors, stored_everyone=given == ["everyone"] and ttl > 0)
    if key is not None and ttl == 0:
        raise Invalid(errors=[("header:Idempotency-Key", "a push with ttl 0 is not stored and takes no key")])
    return Wanted(recipients, given[0] == "user_ids", rendered, category, ttl, _key(key, body))


def read_item(body: Any) -> Wanted:
    """One item of ``POST /notifications/batch``. Raises Invalid, with pointers into the item."""
    errors: Errors = []
    if type(body) is not dict:
        raise Invalid(errors=[("", "has to be an object")])
    if not body.keys() <= _ITEM_FIELDS:
        errors += [
            (f"/{_escaped(name)}", "an item of a batch has one user_id" if name in _TARGETS else "unknown field")
            for name in body
            if name not in _ITEM_FIELDS
        ]
    recipients = _user_id(body.get("user_id"), errors)
    rendered, category, ttl = _content(body, errors)
    key = body.get("idempotency_key")
    if key is not None:
        if type(key) is not str or KEY.fullmatch(key) is None:
            errors.append(("/idempotency_key", f"has to be 1 to {MAX_KEY} visible ASCII characters"))
        elif ttl == 0:
            errors.append(("/idempotency_key", "a push with ttl 0 is not stored and takes no key"))
        # The key is the envelope, not the request: the same push sent by itself with the key in its header is the same.
        body = {name: value for name, value in body.items() if name != "idempotency_key"}
    _finish(body, errors, stored_everyone=False)
    return Wanted(recipients, False, rendered, category, ttl, _key(key, body))


def _user_id(value: Any, errors: Errors) -> tuple[str, ...]:
    if type(value) is not str or not 0 < len(value) <= MAX_ID:
        errors.append(
            ("/user_id", f"has to be a string of 1 to {MAX_ID} characters" if value is not None else "required")
        )
        return ()
    return (value,)


def _user_ids(value: Any, errors: Errors) -> tuple[str, ...]:
    if type(value) is not list or not 0 < len(value) <= MAX_USERS:
        errors.append(("/user_ids", f"has to be a list of 1 to {MAX_USERS} user ids"))
        return ()
    for at, one in enumerate(value):
        if type(one) is not str or not 0 < len(one) <= MAX_ID:
            errors.append((f"/user_ids/{at}", f"has to be a string of 1 to {MAX_ID} characters"))
            return ()
    return tuple(dict.fromkeys(value))


def _content(body: dict[str, Any], errors: Errors) -> tuple[str, str | None, int]:
    """(rendered content, category, ttl); what is wrong is added to ``errors``, and then nothing is rendered."""
    get = body.get
    title, text, data, category = get("title"), get("body"), get("data"), get("category")
    priority, ttl = get("priority"), get("ttl")
    if type(title) is not str or not 0 < len(title) <= MAX_TITLE:
        errors.append(
            ("/title", f"has to be a string of 1 to {MAX_TITLE} characters" if title is not None else "required")
        )
    if text is None:
        text = ""
    elif type(text) is not str or len(text) > MAX_TEXT:
        errors.append(("/body", f"has to be a string of at most {MAX_TEXT} characters"))
    rendered = b"{}"
    if data is not None:
        if type(data) is not dict:
            errors.append(("/data", "has to be an object"))
        else:
            rendered = orjson.dumps(data)
            if len(rendered) > MAX_DATA:
                errors.append(("/data", f"has to be at most {MAX_DATA} bytes of JSON, not {len(rendered)}"))
    if category is not None and (type(category) is not str or not 0 < len(category) <= MAX_CATEGORY):
        errors.append(("/category", f"has to be a string of 1 to {MAX_CATEGORY} characters"))
    if priority is None:
        priority = "normal"
    elif priority not in PRIORITIES:
        errors.append(("/priority", f"has to be one of {', '.join(PRIORITIES)}"))
    if ttl is None:
        ttl = DEFAULT_TTL
    elif type(ttl) is not int or not 0 <= ttl <= MAX_TTL:
        errors.append(("/ttl", f"has to be an integer from 0 to {MAX_TTL} (seconds)"))
        ttl = DEFAULT_TTL
    if errors or title is None:
        return "", None, ttl
    return content(title=title, body=text, data=rendered, category=category, priority=priority), category, ttl


def _finish(body: dict[str, Any], errors: Errors, *, stored_everyone: bool) -> None:
    if errors:
        raise Invalid(errors=errors)
    later = [(f"/{name}", "is not supported yet") for name in _LATER if body.get(name) is not None]
    if stored_everyone:
        later.append(("/everyone", "is only supported with ttl 0 yet"))
    if later:
        names = ", ".join(where[1:] for where, _ in later)
        raise Invalid(f"Not supported by this version: {names}.", code="not_supported", errors=later)


def _key(key: str | None, body: dict[str, Any]) -> tuple[str, bytes] | None:
    """The key with what was asked: SHA-256 of the JSON value, so neither spacing nor order makes a difference."""
    if key is None:
        return None
    return key, hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest()


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
