"""MySQL and MariaDB: what PyMySQL and mysqlclient add to PEP 249, and what the server commits behind our back.

Code in the server (``CALL``, ``EXECUTE``) may commit, and nothing in the text says so.  So a savepoint is set before it
and released after it: where the savepoint is gone, so is the outer transaction; the statement is named at the end of
the test and the database is made again.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import URL, Dialect

from ...reporting import says
from ...sandbox import Rows, Rules
from ..connecting import arguments_of
from ..dbapi import ProxyConnection
from ..proxy_wire import ProxyWire
from .connections import AsyncMySQLConnection, MySQLConnection

_PROBE = "dbtc_probe"
_FIXED = {"client_flag": 0, "conv": None, "use_unicode": True}
_NO_SAVEPOINT, _LOCK_TIMEOUT = 1305, 1205
_ENDING = {1213, 2006, 2013, 2055}  # a deadlock; the connection is lost
_IN_TRANSACTION = 1  # SERVER_STATUS_IN_TRANS of the protocol


@contextlib.contextmanager
def open_mysql(dialect: Dialect, url: URL, rules: Rules, *, lock_timeout: float) -> Iterator[MySQLWire]:
    """The wire of a sandbox on MySQL or MariaDB, by a synchronous driver."""
    args, parameters = arguments_of(dialect, url)

    def connect() -> Any:
        connection: Any = dialect.connect(*args, **parameters)
        connection.autocommit(True)
        return connection

    with contextlib.closing(MySQLWire(dialect, connect(), rules, url)) as wire:
        wire.fixed = {name: parameters.get(name, default) for name, default in _FIXED.items()}
        wire.prepare(lock_timeout, connect)
        yield wire


class MySQLWire(ProxyWire):
    """The wire of a sandbox that speaks PyMySQL or mysqlclient."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pending: tuple[Any, str] | None = None
        """The cursor and the text of a statement that may have committed."""
        self.temporary: list[tuple[str, int]] = []
        """Temporary tables, which outlive a rollback, and how many marks there were when each was made."""
        self.marks = 0
        self.fixed: dict[str, Any] = dict(_FIXED)
        """Keywords of ``connect()`` that hold for all connections, with what this one was given."""
        self.reconnect: Callable[[], Any] | None = None

    def prepare(self, lock_timeout: float, connect: Callable[[], Any] | None) -> None:
        """Settings that only the wire needs; ``connect`` opens one more connection, to ask who holds a lock."""
        self.reconnect = connect
        seconds = max(int(lock_timeout), 1)
        self.send(f"SET SESSION innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}")
        self.charset = str(self.send("SELECT @@character_set_client")[0][0])

    def run(self, *statements: str) -> Rows:
        self.verify()
        return super().run(*self._with_temporary(statements))

    def _with_temporary(self, statements: tuple[str, ...]) -> Iterator[str]:
        """Drop the temporary tables that were made since the mark that is come back to."""
        for statement in statements:
            yield statement
            kept = None
            if statement == self.rules.end:
                kept = 0
            elif statement.startswith("ROLLBACK TO SAVEPOINT dbtc_mark_"):
                kept = int(statement.rpartition("_")[2]) + 1
            if kept is not None and self.temporary:
                gone = [name for name, depth in self.temporary if depth >= kept]
                self.temporary = [each for each in self.temporary if each[1] < kept]
                if gone:
                    yield f"DROP TEMPORARY TABLE IF EXISTS {', '.join(gone)}"

    def probe(self, cursor: Any, text: str) -> None:
        """A statement that may commit is about to run."""
        self.send(f"SAVEPOINT {_PROBE}")
        self.pending = (cursor, text)

    def verify(self) -> bool:
        """Whether a statement that may have committed has done so."""
        if self.pending is None:
            return False
        (cursor, text), self.pending = self.pending, None
        with contextlib.suppress(Exception):  # results of a procedure that nobody has read
            while cursor.nextset():
                pass
        try:
            self.send(f"RELEASE SAVEPOINT {_PROBE}")
        except Exception as error:
            if not says(error, {_NO_SAVEPOINT}):
                raise
            self.lose(text)
            return True
        return False

    def lose(self, text: str) -> None:
        """The outer transaction is gone; what comes now is not to be committed either."""
        self.ended_by = self.ended_by or " ".join(text.split())[:200]
        with contextlib.suppress(Exception):  # the connection may be gone as well
            self.send(self.rules.begin)

    def cut_off(self, error: BaseException) -> None:
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        # PyMySQL closes it; mysqlclient does not know that there is an answer left
        if not getattr(self.connection, "open", True) or (self.driver == "mysqldb" and "_query" in frames):
            self.lose_connection(error)

    def in_transaction(self) -> bool:
        if self.gone:
            return False
        self.verify()
        status = getattr(self.connection, "server_status", None)  # PyMySQL
        if self._begun and isinstance(status, int) and not status & _IN_TRANSACTION:
            self.lose("a statement that could not be told")
        return self._begun and not self.ended_by

    def failed(self, error: BaseException) -> None:
        if says(error, _ENDING):
            self.lose(f"the error {error}")

    def is_lock_timeout(self, error: BaseException) -> bool:
        return says(error, {_LOCK_TIMEOUT})

    def lock_holders(self) -> str:
        if self.reconnect is None:
            return ""
        mine = self.send("SELECT CONNECTION_ID()")[0][0]
        with contextlib.closing(self.reconnect()) as judge, contextlib.closing(judge.cursor()) as cursor:
            cursor.execute(
                "SELECT p.ID, p.USER, p.COMMAND, t.trx_started FROM information_schema.INNODB_TRX t"
                " JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id"
                f" WHERE p.ID NOT IN ({mine}, CONNECTION_ID())"
            )
            rows = cursor.fetchall()
        return "\n".join(
            f"Held by connection {id_} ({user}, {doing}, since {since})" for id_, user, doing, since in rows
        )

    def error(self, name: str, message: str) -> Exception:
        module: Any = self.dialect.loaded_dbapi
        cls: type[Exception] = getattr(module, name, None) or module.OperationalError
        return cls(
            _NO_SAVEPOINT if message.startswith("SAVEPOINT") else 1792 if "read-only" in message else 1105, message
        )

    def send(self, command: str) -> Rows:
        with self.lock:
            return super().send(command)

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return MySQLConnection

    @property
    def async_proxy_class(self) -> type[ProxyConnection]:
        return AsyncMySQLConnection

    @property
    def drivers(self) -> frozenset[str]:
        return frozenset({self.driver, "aiomysql", "asyncmy"} if self.driver == "pymysql" else {self.driver})
