"""MySQL and MariaDB: databases, leases, cleaning."""
