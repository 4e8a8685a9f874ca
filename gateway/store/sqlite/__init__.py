"""The store on one SQLite file: its connections, its lock, its copies. No statement of a port."""
