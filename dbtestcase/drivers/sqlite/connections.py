"""The virtual connections and cursors of SQLite: the three transaction modes of ``sqlite3``, and its statements."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import URL, Dialect

from ...errors import ConfigurationError
from ...sandbox import SQLITE, Kind, Rules, Statement, split
from ..arguments import known, refused
from ..async_adapters import TwinConnection
from ..dbapi import ProxyConnection, ProxyCursor
from . import statements as words
from .features import Features
from .pragmas import Flags
from .wire import SQLiteWire

_HONOURED = ("detect_types", "isolation_level", "factory", "autocommit")
_LEGACY = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, new in Python 3.12


class _Cursor(ProxyCursor):
    """Looks like a ``sqlite3.Cursor``."""

    connection: SQLiteConnection

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return sqlite3.Cursor

    def execute(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        return self.connection._execute(self, operation, *args, **kwargs)

    def executescript(self, script: str) -> Any:
        """Commit, then run each statement of the script by itself, as ``sqlite3`` does."""
        self.connection._script(self, script)
        return self

    def __next__(self) -> Any:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def __iter__(self) -> Iterator[Any]:
        return self

    def _fetch(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.connection._give_text_factory()
        if self.connection._hooks or self.connection._limits:
            with self.connection._hooked():
                return super()._fetch(name, *args, **kwargs)
        return super()._fetch(name, *args, **kwargs)


class SQLiteConnection(Features, Flags):
    """Looks like a ``sqlite3.Connection``."""

    _wire: SQLiteWire

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._isolation_level: str | None = ""
        self._autocommit: Any = _LEGACY
        self._by_savepoint = False  # its transaction began with a SAVEPOINT, so that RELEASE commits
        self._changes = 0
        self._client.checks_deferred = self._wire.foreign_keys
        self._set_mode()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return sqlite3.Connection

    def state(self) -> tuple[object, ...]:
        own = (self._isolation_level, self._autocommit, self._row_factory, self._text_factory)
        flags, answers = tuple(self._flags.items()), tuple(self._answers.items())
        return (*own, flags, answers, self._foreign_keys, *self._features())

    def configure(self, parameters: Mapping[str, Any]) -> None:
        parameters = known(self.dialect.driver, parameters, _HONOURED)
        factory = parameters.get("factory", sqlite3.Connection)
        if factory is not sqlite3.Connection:
            raise refused(self.dialect.driver, "factory", f"{factory!r} is a class of its own")
        types = parameters.get("detect_types", self._wire.detect_types)
        if types != self._wire.detect_types:
            raise ConfigurationError(
                f"An engine connects with detect_types={types}, the sandbox with {self._wire.detect_types}.",
                cause="sqlite3 fixes it when a connection is made, and in the sandbox all connections share one",
                remedy=f'write it into the URL of the test class as well: url = "sqlite://?detect_types={types}"',
            )
        if "isolation_level" in parameters:
            self._isolation_level = parameters["isolation_level"]
        if "autocommit" in parameters:
            self._autocommit = parameters["autocommit"]
        self._set_mode()

    # -- the modes of sqlite3

    def _set_mode(self) -> None:
        if self._autocommit == _LEGACY:
            # the test's own sessions have whole transactions, unless the application's listeners care for that
            self._client.autocommit = self._isolation_level is None or not self._client.own
        else:
            self._client.autocommit = bool(self._autocommit)

    @property
    def isolation_level(self) -> str | None:
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, level: str | None) -> None:
        if level is None and self.in_transaction and self._autocommit == _LEGACY:
            self.commit()  # as sqlite3 does
        self._isolation_level = level
        self._set_mode()

    @property
    def autocommit(self) -> Any:
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: Any) -> None:
        if value == self._autocommit:
            return
        if self.in_transaction and self._autocommit != _LEGACY:
            self._commit_now()
        self._autocommit = value
        self._set_mode()

    @property
    def in_transaction(self) -> bool:
        if self._client.autocommit:
            return bool(self._client.block)
        return self._autocommit is False or self._client.active

    @property
    def total_changes(self) -> int:
        return self._changes

    def commit(self) -> None:
        if self._autocommit is not True:
            self._commit_now()

    def _commit_now(self) -> None:
        super().commit()
        self._ended()

    def rollback(self) -> None:
        if self._autocommit is not True:
            self._roll_back_now()

    def _roll_back_now(self) -> None:
        try:
            super().rollback()
        finally:
            self._ended()

    def _ended(self) -> None:
        self._client.block = 0
        self._by_savepoint = False
        if self._flags.pop("defer_foreign_keys", None) is not None:
            self._wire.applied = None

    def close(self) -> None:
        super().close()
        self._client.block = 0

    # -- statements

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        if self._row_factory is not None:
            cursor.row_factory = self._row_factory
        return cursor

    def _cursor(self, real: Any) -> ProxyCursor:
        return _Cursor(self, real)

    def execute(self, *args: Any) -> Any:
        """A new cursor that has run a statement."""
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, script: str) -> Any:
        return self.cursor().executescript(script)

    def _classify(self, text: Any) -> Statement:
        return words.read(text if isinstance(text, str) else str(text))

    def _keeps_part(self, statement: Statement) -> bool:
        return words.keeps_part(statement.text)

    def _execute(self, cursor: _Cursor, operation: Any, *args: Any, **kwargs: Any) -> Any:
        real = cursor._real
        if not isinstance(operation, str):
            return real.execute(operation, *args, **kwargs)  # a TypeError
        statement = self._classify(operation)
        if statement.kind is Kind.TRANSACTION:
            if word := words.control_word(operation):
                self._check_open()
                self._control(word)
                return self._without_rows(cursor)
            if len(list(split(operation, SQLITE))) > 1:
                return real.execute("SELECT 1; SELECT 2")  # what sqlite3 says to several statements at once
        if statement.kind in (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO):
            self._savepoint(statement)
            return self._without_rows(cursor)
        first = operation.lstrip()[:1].lower()
        if first in "p-/" and (pragma := words.parse_pragma(operation)) is not None:
            replacement = self._pragma(pragma)
            if replacement is not None:
                operation = replacement
        elif first in "a-/" and (attach := words.parse_attach(operation, *args[:1])) is not None:
            operation, args = self._attach(operation, *attach, args)
        self._run(operation, lambda changed: real.execute(changed or operation, *args, **kwargs), real)
        return cursor

    def _without_rows(self, cursor: _Cursor) -> _Cursor:
        """The rows of its last statement are not those of one that need not be sent."""
        if cursor._real.description is not None:
            with self._held():
                cursor._real.execute(self._sandbox.rules.nothing)
        return cursor

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        client, was_in_transaction = self._client, self.in_transaction
        if (
            client.autocommit
            and not client.block
            and self._isolation_level is not None
            and self._autocommit == _LEGACY
            and words.begins_transaction(str(text))
        ):
            client.block = 1  # sqlite3 begins a transaction here
        wire = self._wire

        def counted(replacement: str | None) -> Any:
            self._apply_flags()
            self._give_text_factory()
            before = wire.connection.total_changes
            try:
                if self._hooks or self._limits:
                    with self._hooked():
                        return call(replacement)
                return call(replacement)
            finally:
                self._changes += wire.connection.total_changes - before
                if wire.lost(str(text)):
                    self._sandbox.stack.clear()

        try:
            result = super()._run(text, counted, real, many=many, parameters=parameters)
        except sqlite3.OperationalError:
            if not was_in_transaction and self.in_transaction and not self._compiles(str(text)):
                self._roll_back_now()  # sqlite3 begins a transaction only for what can be run
            raise
        except sqlite3.IntegrityError:
            if self._classify(text).rewrite is not None:  # OR ROLLBACK
                self._roll_back_now()
            raise
        return result

    def _compiles(self, text: str) -> bool:
        """Whether a statement that has failed was understood at all."""
        try:
            self._wire.connection.execute(f"EXPLAIN {text}").close()
        except sqlite3.OperationalError:
            return False
        except sqlite3.Error:
            pass  # its parameters are missing here
        return True

    def _script(self, cursor: _Cursor, script: str) -> None:
        if self.in_transaction and self._autocommit == _LEGACY:
            self._commit_now()
        level, self._isolation_level = self._isolation_level, None
        try:
            for statement in split(script, SQLITE):
                self._execute(cursor, statement)
        finally:
            self._isolation_level = level

    def _control(self, word: str) -> None:
        if word.startswith("begin"):
            if self.in_transaction:
                raise sqlite3.OperationalError("cannot start a transaction within a transaction")
            self._client.block = 1
            if word == "begin immediate":
                with self._held():
                    self._drive(self._sandbox.before(self._client, Statement(Kind.WRITE, word)))
        elif not self.in_transaction:
            raise sqlite3.OperationalError(f"cannot {word} - no transaction is active")
        elif word == "commit":
            self._commit_now()
        else:
            self._roll_back_now()

    def _savepoint(self, statement: Statement) -> None:
        client = self._client
        if statement.kind is Kind.SAVEPOINT and client.each_statement:
            client.block = 1
            self._by_savepoint = True
        elif client.each_statement:
            raise sqlite3.OperationalError(f"no such savepoint: {statement.label}")
        elif (
            statement.kind is Kind.RELEASE
            and self._by_savepoint
            and client.labels[:1] == [statement.label]
            and statement.label not in client.labels[1:]
        ):
            self._commit_now()
            return
        super()._run(statement.text, None, None)


class AsyncSQLiteConnection(SQLiteConnection, TwinConnection):
    """Looks like SQLAlchemy's adapted connection of aiosqlite."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        from sqlalchemy.dialects.sqlite import aiosqlite

        return aiosqlite.AsyncAdapt_aiosqlite_connection


@contextlib.contextmanager
def open_sqlite(dialect: Dialect, url: URL, rules: Rules) -> Iterator[SQLiteWire]:
    """The wire of a sandbox on a database of SQLite."""
    args, parameters = dialect.create_connect_args(url)
    parameters.update(isolation_level=None, check_same_thread=False)
    connection: Any = dialect.connect(*args, **parameters)
    with contextlib.closing(_Wire(dialect, connection, rules, url)) as wire:
        wire.detect_types = parameters.get("detect_types", 0)
        wire.in_memory = any(mark in args[0] for mark in (":memory:", "vfs=memdb", "mode=memory"))
        wire.prepare()
        yield wire


class _Wire(SQLiteWire):
    """With its virtual connections, which know the wire."""

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return SQLiteConnection

    @property
    def async_proxy_class(self) -> type[ProxyConnection]:
        return AsyncSQLiteConnection
