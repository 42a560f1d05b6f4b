"""Many connections, one transaction that is never committed."""
