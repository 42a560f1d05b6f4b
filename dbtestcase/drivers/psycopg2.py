"""psycopg2: what its connections and cursors offer beyond PEP 249."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect

from ..errors import SandboxEscape
from ..sandbox import COMMITTING, classify
from .arguments import refused, same_encoding
from .dbapi import ProxyConnection, ProxyCursor, ProxyWire
from .harness import harness_connections
from .psycopg2_functions import cursor_factory_of, register_on

__all__ = ["Psycopg2Connection", "Psycopg2Cursor", "Psycopg2Wire"]

_WORD = re.compile("[A-Z]")


_LEVELS: dict[object, str] = {
    **{
        0: "",
        None: "",
        "DEFAULT": "",
        1: "read committed",
        2: "repeatable read",
        3: "serializable",
        4: "read uncommitted",
    },
    **{level.upper(): level for level in ("read uncommitted", "read committed", "repeatable read", "serializable")},
}
"""What psycopg2 takes for an isolation level."""


class Psycopg2Wire(ProxyWire):
    """The wire of a sandbox that speaks psycopg2."""

    def __init__(self, dialect: Any, connection: Any, rules: Any) -> None:
        super().__init__(dialect, connection, rules)
        self._cursor = connection.cursor()

    def asked(self, args: Sequence[Any], parameters: Mapping[str, Any], dialect: Dialect) -> Any:
        return self.asked_of_postgresql(args, parameters)

    def send(self, command: str) -> Any:
        cursor = self._cursor  # one is enough, and to make one takes longer than to use it
        cursor.execute(command)
        return cursor.fetchall() if cursor.description else []

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return Psycopg2Connection

    def aborted(self) -> bool:
        return bool(self.connection.get_transaction_status() == 3)

    def in_transaction(self) -> bool:
        return self.connection.get_transaction_status() in (1, 2, 3)

    def failed(self, error: BaseException) -> None:
        """The connection knows by itself."""

    @property
    def gone(self) -> str:
        return self._gone or ("it was closed" if self.connection.closed else "")

    def interrupt(self) -> None:
        self.connection.cancel()

    def error(self, name: str, message: str) -> Exception:
        from psycopg2 import errorcodes

        error = super().error(name, message)
        code = getattr(errorcodes, _WORD.sub(r"_\g<0>", name).upper().lstrip("_"), None)
        if code is not None:  # pgcode cannot be set, but it is pickled
            error.__setstate__({"pgcode": code, "pgerror": f"ERROR:  {message}\n"})
        return error

    def lock_holders(self) -> str:
        import psycopg2

        parameters = self.connection.info.dsn_parameters
        password = self.connection.info.password
        with harness_connections(), contextlib.closing(psycopg2.connect(**parameters, password=password)) as judge:
            judge.autocommit = True
            with judge.cursor() as cursor:
                cursor.execute(
                    "SELECT DISTINCT a.pid, a.usename, a.state, left(a.query, 200) FROM pg_locks l "
                    "JOIN pg_stat_activity a USING (pid) WHERE l.granted AND a.datname = current_database() "
                    "AND a.pid NOT IN (%s, pg_backend_pid()) AND a.xact_start IS NOT NULL",
                    (self.connection.info.backend_pid,),
                )
                rows = cursor.fetchall()
        return "\n".join(f"Held by process {pid} ({user}, {state}): {query}" for pid, user, state, query in rows)


class Psycopg2Cursor(ProxyCursor):
    """Looks like a ``psycopg2.extensions.cursor``."""

    _casts = 0
    """How many of its connection's types it knows."""

    def know_casters(self) -> None:
        """What is registered on a connection holds for its cursors, whenever they were made."""
        casters = self.connection.casters
        for caster in casters[self._casts :]:
            register_on(caster, self._real)
        object.__setattr__(self, "_casts", len(casters))

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        from psycopg2 import extensions

        return extensions.cursor

    def execute(self, query: Any, vars: Any = None) -> None:
        """Run a statement, inside the sandbox; what is common is done here in little time."""
        connection = self.connection
        real = self._real
        if len(connection.casters) != self._casts:
            self.know_casters()
        if type(query) is str and not connection._closed:
            statement = classify(query)
            if statement.plain:
                sandbox, client = connection._sandbox, connection._client
                sandbox.scheduler.acquire(client.ticket)
                try:
                    command = sandbox.at_once(client, statement)
                    if command is not None:
                        if command:
                            connection._wire.send(command)
                        try:
                            real.execute(query, vars)
                        except Exception as error:
                            connection._explain(error)
                            raise
                        if (statement.counts or statement.calls) and not sandbox.is_over(
                            client, statement, real.rowcount
                        ):
                            connection._drive(sandbox.after(client, statement, real.rowcount))
                        return
                finally:
                    sandbox.scheduler.release(client.ticket)
        connection._run(query, lambda new: real.execute(new or query, vars), real, parameters=vars)

    def fetchone(self) -> Any:
        return self._real.fetchone()

    def fetchall(self) -> Any:
        return self._real.fetchall()

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        return self.connection._run(sql, lambda _: self._real.copy_expert(sql, *args, **kwargs), self._real)

    def copy_from(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        return self.connection._run(
            f"COPY {table} FROM STDIN", lambda _: self._real.copy_from(file, table, *args, **kwargs), self._real
        )

    def copy_to(self, file: Any, table: str, *args: Any, **kwargs: Any) -> Any:
        return self.connection._run(
            f"COPY {table} TO STDOUT", lambda _: self._real.copy_to(file, table, *args, **kwargs), self._real
        )

    def callproc(self, name: str, *args: Any) -> Any:
        return self.connection._run(f"SELECT {name}()", lambda _: self._real.callproc(name, *args), self._real)


class _NamedCursor(Psycopg2Cursor):
    """A server-side cursor: psycopg2's own refuses to work on a physical connection in autocommit mode.

    :param real: an unnamed cursor, of the class that the application asked for.
    """

    _OWN = frozenset({"name", "withhold", "scrollable", "itersize", "_declared", "_mark"})

    def __init__(
        self, connection: ProxyConnection, real: Any, name: str, withhold: bool, scrollable: bool | None
    ) -> None:
        super().__init__(connection, real)
        self.name = name
        self.withhold = withhold
        self.scrollable = scrollable
        self.itersize = 2000
        self._declared = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._OWN:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def _quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'

    def execute(self, operation: Any, vars: Any = None) -> None:
        connection = self.connection
        if self._declared:
            raise connection._wire.error("ProgrammingError", "can't call .execute() on named cursors more than once")
        if connection._client.each_statement and not self.withhold:
            raise connection._wire.error("ProgrammingError", "can't use a named cursor outside of transactions")
        scroll = {None: "", True: "SCROLL ", False: "NO SCROLL "}[self.scrollable]
        hold = " WITH HOLD" if self.withhold else ""
        text = f"DECLARE {self._quoted} {scroll}CURSOR{hold} FOR {connection._text(operation)}"
        super().execute(text, vars)
        self._declared = True
        self._mark = connection._mark

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        raise self.connection._wire.error("ProgrammingError", "can't call .executemany() on named cursors")

    def _ask(self, command: str) -> None:
        """Ask the server about the cursor, which sees no new rows."""
        connection = self.connection
        if not self._declared:
            raise connection._wire.error("ProgrammingError", "no results to fetch")
        if self._mark != connection._mark and not self.withhold:
            raise connection._wire.error("ProgrammingError", "named cursor isn't valid anymore")
        with connection._held():
            connection._drive(connection._sandbox.recover_for(connection._client))
            try:
                self._real.execute(command)
            except Exception as error:
                connection._wire.failed(error)
                raise

    def fetchone(self) -> Any:
        self._ask(f"FETCH FORWARD 1 FROM {self._quoted}")
        return self._real.fetchone()

    def fetchmany(self, size: int | None = None) -> Any:
        self._ask(f"FETCH FORWARD {self._real.arraysize if size is None else size} FROM {self._quoted}")
        return self._real.fetchall()

    def fetchall(self) -> Any:
        self._ask(f"FETCH FORWARD ALL FROM {self._quoted}")
        return self._real.fetchall()

    def __iter__(self) -> Iterator[Any]:
        while rows := self.fetchmany(self.itersize):
            yield from rows

    def scroll(self, value: int, mode: str = "relative") -> None:
        if mode not in ("relative", "absolute"):
            raise self.connection._wire.error("ProgrammingError", "scroll mode must be 'relative' or 'absolute'")
        self._ask(f"MOVE {mode.upper()} {value} FROM {self._quoted}")

    def close(self) -> None:
        connection = self.connection
        if self._declared and not self._real.closed and not connection._closed:
            sandbox, client = connection._sandbox, connection._client
            # where a transaction has failed the server would refuse it, and what a test has left open ended with it
            if sandbox.is_open(client) and sandbox.status(client) != "failed":
                self._ask(f"CLOSE {self._quoted}")
            self._declared = False
        self._real.close()


class Psycopg2Connection(ProxyConnection):
    """Looks like a ``psycopg2.extensions.connection``."""

    _mark = 0  # of psycopg2's own: how often a transaction was ended, and the named cursors with it

    def commit(self) -> None:
        self._mark += 1
        super().commit()

    def rollback(self) -> None:
        self._mark += 1
        super().rollback()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        from psycopg2 import extensions

        return extensions.connection

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.casters: list[Any] = []
        """What ``register_type()`` was given for this connection."""
        self.cursor_factory: Any = None

    def state(self) -> tuple[object, ...]:
        own = (len(self.casters), self.cursor_factory, self.isolation_level, self.deferrable)
        return (*super().state(), *own)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        made = parameters.get("connection_factory")
        if made is not None:
            self.cursor_factory = cursor_factory_of(made)
        self.cursor_factory = parameters.get("cursor_factory") or self.cursor_factory
        if parameters.get("client_encoding"):
            self.set_client_encoding(parameters["client_encoding"])

    def set_client_encoding(self, encoding: str) -> None:
        """Refused, unless it is the one in use.

        :raises ConfigurationError: it is another one.
        """
        there = self._wire.connection.encoding
        if not same_encoding(encoding, there):
            raise refused("psycopg2", "client_encoding", f"{encoding} beside {there}")

    @property
    def string_types(self) -> dict[int, Any]:
        """The types that are registered on this connection, by oid."""
        return {oid: caster for caster in self.casters for oid in caster.values}

    @property
    def binary_types(self) -> dict[int, Any]:
        return {}

    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> ProxyCursor:
        factory = cursor_factory or self.cursor_factory
        if name is None:
            return super().cursor(cursor_factory=factory)
        self._check_open()
        return _NamedCursor(self, self._wire.connection.cursor(cursor_factory=factory), name, withhold, scrollable)

    def _cursor(self, real: Any) -> ProxyCursor:
        return Psycopg2Cursor(self, real)

    def _text(self, operation: Any) -> str:
        if isinstance(operation, bytes):
            return operation.decode(errors="replace")
        if hasattr(operation, "as_string"):
            return str(operation.as_string(self._wire.connection))
        return str(operation)

    def _classify(self, text: Any) -> Any:
        return super()._classify(self._text(text))

    @property
    def closed(self) -> int:
        return 1 if self._closed else int(self._wire.connection.closed)

    @property
    def autocommit(self) -> bool:
        return self._client.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.set_autocommit(bool(value))

    @property
    def status(self) -> int:
        return 2 if self._sandbox.status(self._client) != "idle" else 1

    @property
    def isolation_level(self) -> int | None:
        return getattr(self, "_level", None)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        self.set_isolation_level(level)

    def set_isolation_level(self, level: Any) -> None:
        """Of the transactions to come; 0 is autocommit."""
        if self._sandbox.status(self._client) != "idle":
            self.rollback()  # as psycopg2 does
        name = _LEVELS.get(level.upper() if isinstance(level, str) else level)
        if name is None:
            raise self._wire.error("ProgrammingError", f"bad value for isolation_level: {level!r}")
        self.set_autocommit(level == 0)
        self._level = None if level in (0, None, "DEFAULT") else level
        self._client.set_modes(level=name)

    @property
    def readonly(self) -> bool | None:
        return self._client.read_only or None

    @readonly.setter
    def readonly(self, value: bool | None) -> None:
        self._client.set_modes(read_only=bool(value))

    @property
    def deferrable(self) -> bool | None:
        return getattr(self, "_deferrable", None)

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self._deferrable = value

    def set_session(
        self, isolation_level: Any = None, readonly: Any = None, deferrable: Any = None, autocommit: Any = None
    ) -> None:
        if autocommit is not None:
            self.set_autocommit(bool(autocommit))
        if readonly is not None:
            self._client.set_modes(read_only=readonly not in (False, "default", "DEFAULT"))
        if isolation_level is not None:
            self.set_isolation_level(isolation_level)
        if deferrable is not None:
            self._deferrable = deferrable

    def get_transaction_status(self) -> int:
        return {"idle": 0, "active": 2, "failed": 3}[self._sandbox.status(self._client)]

    def lobject(self, *args: Any, **kwargs: Any) -> None:
        """Refused: it looks for the transaction of the physical connection.

        :raises SandboxEscape: always.
        """
        raise self._sandbox.note(
            SandboxEscape(
                "lobject() would open a large object in a transaction of its own; it was not called.",
                cause="psycopg2's own interface to large objects, which the sandbox cannot follow",
                remedy="use the server's functions (lo_from_bytea(), lo_get(), lo_put()), or " + COMMITTING,
            )
        )

    def cancel(self) -> None:
        self._wire.connection.cancel()

    def reset(self) -> None:
        """Roll back and take back every ``SET``."""
        self.rollback()
        self.set_isolation_level(None)
        self._client.read_only = False
        with contextlib.closing(self.cursor(cursor_factory=_plain_cursor())) as cursor:
            cursor.execute("RESET ALL; SET SESSION AUTHORIZATION DEFAULT")
        self.commit()


def _plain_cursor() -> Any:
    from psycopg2 import extensions

    return extensions.cursor
