"""The HTTP interface: routes, how they read and what they answer. No rule of the gateway is decided in here."""
