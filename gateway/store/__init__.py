"""The durable adapters of the ports in SQL (SQLite today). Not the gateway's rules: those ask through ``ports``."""
