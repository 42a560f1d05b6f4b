"""psycopg 3: virtual connections over one PGconn."""
