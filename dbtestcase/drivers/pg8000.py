"""pg8000: what its connections and errors are like, beyond PEP 249."""

from __future__ import annotations

import traceback
from collections import deque
from copy import copy
from typing import Any

from ..sandbox import Kind, Rows, never_notified
from . import dbapi
from .dbapi import ProxyConnection
from .proxy_wire import ProxyWire

_CODES = {
    "ActiveSqlTransaction": "25001",
    "InFailedSqlTransaction": "25P02",
    "InvalidCursorName": "34000",
    "InvalidSavepointSpecification": "3B001",
    "InvalidSqlStatementName": "26000",
    "NoActiveSqlTransaction": "25P01",
    "ReadOnlySqlTransaction": "25006",
    "UndefinedObject": "42704",
}
"""PostgreSQL's codes of the errors that the sandbox gives in its place; pg8000 has no classes for them."""


class Pg8000Wire(ProxyWire):
    """The wire of a sandbox that speaks pg8000."""

    asked = ProxyWire.asked_of_postgresql

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return _Connection

    def send(self, command: str) -> Rows:
        rows: Rows = []
        for part in command.split(";") if command.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")) else [command]:
            rows = super().send(part)  # an extended query takes one statement at a time
        return rows

    def error(self, name: str, message: str) -> Exception:
        if name in _CODES:
            return type(super().error("ProgrammingError", message))({"S": "ERROR", "C": _CODES[name], "M": message})
        return super().error(name, message)

    def in_transaction(self) -> bool:
        return bool(self.connection._in_transaction) and not self.gone

    def cut_off(self, error: BaseException) -> None:
        # it does not know that there is an answer left, which it would take for that to the next statement
        if any(frame.f_code.co_name == "handle_messages" for frame, _ in traceback.walk_tb(error.__traceback__)):
            self.lose_connection(error)

    def aborted(self) -> bool:
        return bool(self.connection._transaction_status == b"E")

    def failed(self, error: BaseException) -> None:
        """The connection knows by itself."""


class _Connection(ProxyConnection):
    autocommit = dbapi.autocommit
    passed_on = frozenset(("xid",))

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.notices: Any = deque(maxlen=100)
        """What the server has said to this connection."""
        self._types: tuple[Any, Any] | None = None

    def state(self) -> tuple[object, ...]:
        return (*super().state(), self._types and tuple(tuple(each.items()) for each in self._types))

    def _own_types(self) -> tuple[Any, Any]:
        if self._types is None:
            with self._held():
                self._types = copy(self._wire.connection.py_types), copy(self._wire.connection.pg_types)
        return self._types

    @property
    def py_types(self) -> Any:
        """How values are written, by their types."""
        return self._own_types()[0]

    @property
    def pg_types(self) -> Any:
        """How values are read, by the server's types."""
        return self._own_types()[1]

    def register_out_adapter(self, typ: Any, out_func: Any) -> None:
        self.py_types[typ] = out_func

    def register_in_adapter(self, oid: int, in_func: Any) -> None:
        self.pg_types[oid] = in_func

    @property
    def notifications(self) -> Any:
        """Empty, as long as the connection listens to nothing; refused where it would listen in vain."""
        if self._sandbox.session.listens(self._client):
            raise self._sandbox.note(never_notified("notifications"))
        return self._wire.connection.notifications

    def run(self, sql: str, stream: Any = None, **parameters: Any) -> Any:
        """Run a statement without a cursor."""
        real = self._wire.connection
        return self._run(sql, lambda new: real.run(new or sql, stream=stream, **parameters), real)

    def set_autocommit(self, value: bool) -> None:
        if value and self._client.active and not self._client.each_statement:
            self._client.block = 1  # the transaction goes on until it is ended
        self._client.autocommit = value

    def commit(self) -> None:
        failed = self._sandbox.status(self._client) == "failed"
        super().commit()
        self._client.block = 0
        if failed:
            raise self._wire.error("InterfaceError", "in failed transaction block")

    def rollback(self) -> None:
        super().rollback()
        self._client.block = 0

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        self._wire.connection.notices = self.notices
        statement = self._classify(text)
        if statement.kind is Kind.TRANSACTION and str(text).strip().upper() == "COMMIT" and not self._client.has_run:
            return self.commit()  # SQLAlchemy sends it after it has set the isolation level
        types, wire = self._types, self._wire.connection
        if types is None:
            return super()._run(text, call, real, many=many, parameters=parameters)

        def adapted(replacement: str | None) -> Any:
            shared = wire.py_types, wire.pg_types
            wire.py_types, wire.pg_types = types
            try:
                return call(replacement)
            finally:
                wire.py_types, wire.pg_types = shared

        return super()._run(text, adapted, real, many=many, parameters=parameters)
