"""A JWT-secured notification push gateway: durable inboxes, live sockets, revocation that closes them."""

__version__ = "0.1.0"
