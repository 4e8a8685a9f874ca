"""The store on PostgreSQL: its connections and what they raise. No statement of a port."""
