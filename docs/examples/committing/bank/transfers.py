"""Transfers under SERIALIZABLE: done again where two of them got in each other's way."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from .db import engine
from .models import Account

serializable = engine.execution_options(isolation_level="SERIALIZABLE")


def transfer(source: str, target: str, amount: int, *, after_reading: Callable[[], object] = lambda: None) -> int:
    """Move money; how many attempts it took."""
    for attempt in range(1, 10):
        try:
            with Session(serializable) as session, session.begin():
                accounts = {a.owner: a for a in session.scalars(select(Account))}
                after_reading()
                accounts[source].balance -= amount
                accounts[target].balance += amount
            return attempt
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in ("40001", "40P01"):
                raise
    raise RuntimeError("too much traffic")
