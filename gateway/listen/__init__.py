"""A real client of the gateway: signs in, listens, acknowledges, comes back. No server code in here."""
