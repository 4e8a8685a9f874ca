"""The client of a notification gateway: to push from a backend service, to receive as a user. No server code is loaded.

``docs/clients/python.md`` shows it. What this page names is an interface; the modules inside are not.
"""

from __future__ import annotations

from gateway.client.errors import (
    Forbidden,
    GatewayError,
    Invalid,
    NotFound,
    RateLimited,
    Refused,
    Stopped,
    Unauthorized,
    Unavailable,
)
from gateway.client.receiving import Subscription
from gateway.client.sending import AsyncGateway, Gateway
from gateway.client.values import FieldError, Notification, Problem, Push, Pushed, Receipt, Result

__all__ = [
    "AsyncGateway",
    "FieldError",
    "Forbidden",
    "Gateway",
    "GatewayError",
    "Invalid",
    "NotFound",
    "Notification",
    "Problem",
    "Push",
    "Pushed",
    "RateLimited",
    "Receipt",
    "Refused",
    "Result",
    "Stopped",
    "Subscription",
    "Unauthorized",
    "Unavailable",
]
