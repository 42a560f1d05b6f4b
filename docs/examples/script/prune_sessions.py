"""Delete logins that have not been used for a number of days.

A script as it stands in many folders: tables, engine and main() in one file.  Run: python prune_sessions.py 30
"""

import os
import sys

from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, create_engine, func, text

engine = create_engine(os.environ.get("DATABASE_URL", "postgresql+psycopg://localhost/accounts"))
metadata = MetaData()
logins = Table(
    "logins",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("used_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


def main(arguments: list[str]) -> int:
    days = int(arguments[0])
    with engine.begin() as connection:
        deleted = connection.execute(
            logins.delete().where(logins.c.used_at < func.now() - func.make_interval(0, 0, 0, days))
        ).rowcount
    print(f"{deleted} deleted")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE logins"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
