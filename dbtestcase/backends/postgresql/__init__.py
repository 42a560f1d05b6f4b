"""PostgreSQL: databases, leases, templates, cleaning."""
