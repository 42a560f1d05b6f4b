"""psycopg: what a connection says of itself is its own, not the physical one's."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.pq.misc import connection_summary

__all__ = ["described", "info_of", "status_of"]

_SUMMARY = re.compile(r"\[\w+")


def status_of(connection: Any) -> TransactionStatus:
    """The status of a virtual connection's transaction."""
    if connection.closed:
        return TransactionStatus.UNKNOWN
    real = TransactionStatus(connection.pgconn.transaction_status)
    if real in (TransactionStatus.UNKNOWN, TransactionStatus.ACTIVE):
        return real
    statuses = {"idle": TransactionStatus.IDLE, "active": TransactionStatus.INTRANS}
    return statuses.get(connection.status, TransactionStatus.INERROR)


def described(connection: Any, name: str) -> str:
    """A connection, or something of it, as psycopg writes it down."""
    summary = connection_summary(connection.pgconn)
    status = "[BAD]" if connection.closed else _SUMMARY.sub(f"[{status_of(connection).name}", summary, count=1)
    return f"<psycopg.{name} {status} at 0x{id(connection):x}>"


def info_of(connection: Any) -> psycopg.ConnectionInfo:
    """What ``connection.info`` is."""
    return _ClosedInfo(connection.pgconn) if connection._closed else _Info(connection)


class _Info(psycopg.ConnectionInfo):
    """The status of the virtual transaction, and the settings that are the connection's."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection.pgconn)
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        return status_of(self._connection)

    def parameter_status(self, param_name: str) -> str | None:
        self._connection.settle_settings()
        return super().parameter_status(param_name)

    @property
    def timezone(self) -> Any:
        self._connection.settle_settings()
        return super().timezone


class _ClosedInfo(psycopg.ConnectionInfo):
    """That of a connection that was closed, while the physical one goes on."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        known = {
            "status": ConnStatus.BAD,
            "transaction_status": TransactionStatus.UNKNOWN,
            "pipeline_status": PipelineStatus.OFF,
            "error_message": "",
        }
        if name not in known:
            raise psycopg.OperationalError("the connection is closed")
        return known[name]
