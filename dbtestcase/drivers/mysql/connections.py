"""The virtual connections and cursors of MySQL and MariaDB."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from ...errors import SandboxEscape
from ...sandbox import COMMITTING, Kind, Statement, Topic
from ..arguments import known, refused
from ..async_adapters import TwinConnection
from ..dbapi import ProxyConnection, ProxyCursor
from . import statements as words

_HONOURED = (
    *("charset", "collation", "sql_mode", "init_command", "autocommit", "cursorclass", "cursor_cls"),
    *("client_flag", "conv", "use_unicode"),
)
_UTF8 = {"utf8", "utf8mb3", "utf8mb4"}


_PASSED_ON = frozenset(
    """
    affected_rows character_set_name escape escape_string string_literal literal get_host_info get_proto_info
    get_server_info get_server_version get_character_set_info info errno error sqlstate field_count warning_count
    insert_id thread_id next_result more_results store_result use_result discard_result show_warnings stat fileno
    """.split()  # noqa: SIM905
)


class MySQLConnection(ProxyConnection):
    """Looks like a connection of PyMySQL or mysqlclient."""

    _wire: Any
    passed_on = _PASSED_ON
    _level = ""
    _cursor_class: Any = None

    def configure(self, parameters: Mapping[str, Any]) -> None:
        driver = self.dialect.driver
        given = known(driver, parameters, _HONOURED)
        for name, there in self._wire.fixed.items():
            if name in given and given[name] != there:
                raise refused(driver, name, f"it is {there!r} for all; write it into the URL of the test class as well")
        self._cursor_class = given.get("cursorclass") or given.get("cursor_cls")
        charset, collation = given.get("charset"), given.get("collation")
        if charset and (str(charset) != self._wire.charset or collation):
            self.set_character_set(str(charset), collation)
        self._set_up(given)
        self.set_autocommit(bool(given.get("autocommit", False)))

    def _set_up(self, given: Mapping[str, Any]) -> None:
        """Run what the driver runs when it connects, and commit it as it does."""
        statements: list[tuple[Any, ...]] = []
        if given.get("sql_mode"):
            statements.append(("SET SESSION sql_mode = %s", (given["sql_mode"],)))
        if given.get("init_command"):
            statements.append((given["init_command"],))
        for each in statements:
            with contextlib.closing(ProxyConnection.cursor(self)) as cursor:
                cursor.execute(*each)
        if statements:
            self.commit()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        with super()._held(), self._wire.lock:
            if self._wire.pending is not None and self._wire.verify():
                self._sandbox.stack.clear()
            yield

    def _classify(self, text: Any) -> Statement:
        return words.read(text.decode(errors="replace") if isinstance(text, (bytes, bytearray)) else str(text))

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        text = text.decode(errors="replace") if isinstance(text, (bytes, bytearray)) else str(text)
        statement = self._classify(text)
        if self._is_done_without(statement):
            return 0
        wire = self._wire

        def contained(replacement: str | None) -> Any:
            with wire.lock:
                return send(replacement)

        def send(replacement: str | None) -> Any:
            if statement.kind is Kind.WRITE and words.runs_procedures(text):
                wire.probe(real, text)
            if self._level and words.asks_isolation_level(text):
                replacement = f"SELECT '{self._level}'"
            replacement = replacement or words.with_autocommit(text, self._client.autocommit)
            result = call(replacement)
            if statement.kind is Kind.WRITE:
                marks = len(self._sandbox._scopes)
                wire.temporary += [(name, marks) for name in words.temporary_tables(text)]
            return result

        if Topic.ADVISORY in statement.topics:
            text = _with_values(text, parameters)  # which lock is meant may be among them
        result = super()._run(text, contained, real, many=many, parameters=parameters)
        if wire.ended_by and not self._sandbox.wire.in_transaction():
            self._sandbox.stack.clear()
        return result

    def _is_done_without(self, statement: Statement) -> bool:
        """Whether nothing is to be sent for it."""
        client = self._client
        if statement.kind is Kind.CHARACTERISTICS:
            # no other transaction runs beside this one: every level gives the same result
            self._level = words.isolation_level(statement.text) or self._level
            client.set_modes(level=self._level.replace("-", " ").lower())
            return True
        if statement.kind is Kind.TRANSACTION:
            # SQLAlchemy sends COMMIT after it has set the isolation level
            return bool(words.control_word(statement.text)) and not client.active
        if statement.kind is Kind.SAVEPOINT and client.each_statement:
            return True  # the server takes it, and forgets it at once
        if statement.kind in (Kind.RELEASE, Kind.ROLLBACK_TO) and client.each_statement:
            name, message = self._sandbox.rules.no_savepoint
            raise self._wire.error(name, message.format(statement.label))
        if "character_set_client" in statement.settings and not client.settings.session:
            return words.sets_charset(statement.text, self._wire.charset)  # every dialect sends it when it connects
        if statement.kind is not Kind.READ:
            return False
        setting = words.settings_of(statement.text)
        if setting.autocommit is None or setting.escapes or setting.names:
            return False
        self.set_autocommit(False)
        return True

    # -- what the drivers add

    def autocommit(self, value: Any) -> Any:
        """Let each statement commit by itself, or not; a transaction that is open is committed first."""
        if bool(value) != self._client.autocommit:
            if self._client.active:
                self.commit()
            self._client.autocommit = bool(value)

    def set_autocommit(self, value: bool) -> None:
        self._client.autocommit = value

    def get_autocommit(self) -> bool:
        return self._client.autocommit

    def begin(self) -> Any:
        """Begin a transaction, also in autocommit mode; one that is open is committed."""
        self.commit()
        self._client.block = 1

    def commit(self) -> Any:
        super().commit()
        self._client.block = 0

    def rollback(self) -> Any:
        try:
            super().rollback()
        finally:
            self._client.block = 0

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """``SET NAMES`` for this connection; refused where the driver would have to write in another encoding."""
        there = self._wire.charset
        if charset != there and not {charset, there} <= _UTF8:
            raise refused(self.dialect.driver, "charset", f"{charset} beside {there}")
        with contextlib.closing(ProxyConnection.cursor(self)) as cursor:
            cursor.execute(f"SET NAMES {charset}" + (f" COLLATE {collation}" if collation else ""))

    def refuse(self, what: str) -> SandboxEscape:
        """The error for a method that would change what all connections of the sandbox share."""
        return self._sandbox.note(
            SandboxEscape(
                f"{what} would change the session that all connections of the sandbox share; it was not called.",
                cause="one physical connection carries them all",
                remedy=COMMITTING,
            )
        )  # type: ignore[return-value]

    def select_db(self, database: Any) -> None:
        """Refused, unless the database is the one in use."""
        name = database.decode() if isinstance(database, bytes) else str(database)
        if name != self._wire.send("SELECT DATABASE()")[0][0]:
            raise self.refuse(f"select_db({name!r})")

    def change_user(self, *args: Any, **kwargs: Any) -> None:
        """Refused."""
        raise self.refuse("change_user()")

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._wire.connection)

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if not callable(found):  # what is written into its dictionaries would hold for all
            return MappingProxyType(found) if isinstance(found, dict) else found

        @functools.wraps(found)
        def one_at_a_time(*args: Any, **kwargs: Any) -> Any:
            with self._wire.lock:  # mysqlclient refuses a second thread, whatever it asks
                return found(*args, **kwargs)

        return one_at_a_time

    def cursor(self, cursor: Any = None, *args: Any, **kwargs: Any) -> Any:
        cursor = cursor or kwargs.pop("cursorclass", None) or self._cursor_class
        if not cursor:
            return super().cursor(*args, **kwargs)
        made = super().cursor(self._buffered(cursor), *args, **kwargs)
        object.__setattr__(made, "_asked", cursor)
        return made

    @property
    def cursorclass(self) -> Any:
        """The class of cursors for which none is asked."""
        return self._cursor_class or self._wire.connection.cursorclass

    @cursorclass.setter
    def cursorclass(self, value: Any) -> None:
        self._cursor_class = value

    def state(self) -> tuple[object, ...]:
        return (*super().state(), self._cursor_class)

    def _buffered(self, cursor: type) -> type:
        """The class that fetches at once in place of one that streams: nobody else could use the wire meanwhile."""
        if not any("SSCursor" in base.__name__ for base in cursor.__mro__):
            return cursor
        module = importlib.import_module(f"{type(self._wire.connection).__module__.partition('.')[0]}.cursors")
        found = getattr(module, cursor.__name__.removeprefix("SS"), None)
        if cursor.__module__ != module.__name__ or found is None:
            raise self.refuse(f"cursor({cursor.__name__})")
        return found  # type: ignore[no-any-return]

    def query(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement without a cursor."""
        real = self._wire.connection
        return self._run(sql, lambda new: real.query(new or sql, *args, **kwargs), real)

    def ping(self, *args: Any, **kwargs: Any) -> Any:
        """Whether the server answers; never a new connection."""
        with self._held():
            real = self._wire.connection
            return real.ping(reconnect=False) if self._wire.driver == "pymysql" else real.ping()

    @property
    def open(self) -> bool:
        """Whether it has not been closed."""
        return not self._closed

    def set_charset(self, charset: str, *args: Any) -> None:
        self.set_character_set(charset)

    def __exit__(self, *exc: object) -> None:
        self.close()  # as both drivers do

    def _cursor(self, real: Any) -> ProxyCursor:
        return _Cursor(self, real)


class _Cursor(ProxyCursor):
    _asked: Any = None
    """The class that the application has asked for, which streams perhaps."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._asked or type(self._real)

    def close(self) -> None:
        wire: Any = self.connection._wire
        if wire.pending is not None and wire.pending[0] is self._real:
            with self.connection._held():
                pass  # what the procedure has left is looked at now
        with wire.lock:
            super().close()

    def nextset(self) -> Any:
        """Go on to the next result of a procedure."""
        with self.connection._wire.lock:
            return self._real.nextset()


class AsyncMySQLConnection(MySQLConnection, TwinConnection):
    """Looks like SQLAlchemy's adapted connections of aiomysql and asyncmy."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return AsyncMySQLConnection

    def cursor(self, cursor: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().cursor()  # SQLAlchemy names a class of its own where it wants to stream


def _with_values(text: str, parameters: Any) -> str:
    """The text with its parameters as literals, as far as they are strings or numbers."""
    if not parameters or not isinstance(parameters, (tuple, list, dict)):
        return text

    def literal(value: object) -> str:
        return str(value) if isinstance(value, (int, float)) else words.literal(str(value))

    try:
        if isinstance(parameters, dict):
            return text % {name: literal(value) for name, value in parameters.items()}
        return text % tuple(map(literal, parameters))
    except (TypeError, ValueError, KeyError):
        return text  # the driver's own error comes next
