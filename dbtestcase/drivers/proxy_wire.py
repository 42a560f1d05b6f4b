"""Any other DBAPI driver: virtual connections as proxies over one physical connection.

What a driver adds to PEP 249 lives in a subclass of :class:`ProxyWire` and of :class:`ProxyConnection` in a module of
its own; this module knows only the standard.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Dialect

from ..errors import SandboxBusy, SandboxEscape
from ..sandbox import COMMITTING, Client, Flow, Kind, Rows, Rules, Sandbox, Statement, classify, with_parameter_names
from .arguments import asked_of, settings_beyond
from .sockets import descriptor_of, shut_down

__all__ = ["ProxyConnection", "ProxyCursor", "ProxyWire"]

_CONTROL = (Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)


class ProxyWire:
    """The physical connection of a sandbox, opened by a SQLAlchemy dialect.

    :param dialect: the dialect whose driver is used.
    :param connection: what ``dialect.connect()`` returned, in the driver's autocommit mode.
    """

    def __init__(self, dialect: Dialect, connection: Any, rules: Rules) -> None:
        self.driver: str = dialect.driver
        self.dialect = dialect
        self.connection = connection
        self.rules = rules
        self.broken = False  # a statement failed and the server waits for a rollback
        self.url: URL | None = None
        """Where it was opened."""
        self._startup: dict[str, str] | None = None
        self.ended_by = ""
        """The statement that ended the outer transaction, if one did."""
        self._gone = ""
        self._begun = False
        self.lock = threading.RLock()

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        """The class of the virtual connections."""
        return ProxyConnection

    @property
    def async_proxy_class(self) -> type[ProxyConnection]:
        """The class of the virtual connections of async engines."""
        return self.proxy_class

    @property
    def drivers(self) -> frozenset[str]:
        """The drivers whose engines can be led here."""
        return frozenset({self.driver})

    def run(self, *statements: str) -> Rows:
        rows: Rows = []
        for statement in self.rules.outer(*statements):
            try:
                rows = self.send(statement) or rows
            except Exception as error:
                self.is_cut_off(error)
                raise
        self.broken = False
        if self.rules.begin in statements or self.rules.end in statements:
            self._begun = self.rules.begin in statements
        return rows

    def send(self, command: str) -> Rows:
        """Run one command of the sandbox's own."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(command)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        finally:
            cursor.close()

    def aborted(self) -> bool:
        return self.broken

    def in_transaction(self) -> bool:
        return self._begun and not self.ended_by and not self.gone

    def forget_plans(self) -> None:
        """Nothing is prepared by a driver that is not known."""

    def is_private(self) -> bool:
        return True  # the proxies do not hand it out

    def reset(self) -> None:
        """An outer transaction is about to begin: nothing is left of what the last one's clients have set."""

    def test_ended(self, restart: Callable[[str], bool]) -> None:
        """Everything was rolled back: what else a test has changed ends now."""

    def settle(self) -> None:
        """Nothing can be in the middle of something."""

    def interrupt(self) -> None:
        """Nothing is standard: it is waited for."""

    def cut(self, why: str) -> None:
        self._gone = why
        descriptor = descriptor_of(self.connection)
        if descriptor is not None:
            shut_down(descriptor)

    def error(self, name: str, message: str) -> Exception:
        module: Any = self.dialect.loaded_dbapi
        cls: type[Exception] = getattr(getattr(module, "errors", module), name, None) or module.OperationalError
        return cls(message)

    def failed(self, error: BaseException) -> None:
        """A statement failed."""
        if self.rules.error_aborts:
            self.broken = True

    def cut_off(self, error: BaseException) -> None:
        """Something that is not the driver's was raised, perhaps in the middle of an answer: by a signal's handler."""

    @property
    def gone(self) -> str:
        """Why the physical connection cannot be used any more; empty as long as it can."""
        return self._gone

    def is_cut_off(self, error: BaseException) -> bool:
        """Whether the physical connection is lost with an error."""
        module: Any = self.dialect.loaded_dbapi
        if not isinstance(error, module.Error):
            self.cut_off(error)
        elif not self._gone and self.dialect.is_disconnect(error, self.connection, None):
            self._gone = f"it was closed ({' '.join(str(error).split())[:200]})"
        return bool(self.gone)

    def lose_connection(self, error: BaseException) -> None:
        """The driver cannot go on after what was raised."""
        self._gone = self._gone or f"{type(error).__name__} was raised in the middle of a statement"

    def check_connection(self) -> None:
        """Make sure that the physical connection can be used.

        :raises Exception: the driver's ``InterfaceError``.
        """
        if self.gone:
            raise self.error("InterfaceError", f"the connection of the sandbox is lost: {self.gone}")

    def is_lock_timeout(self, error: BaseException) -> bool:
        """Whether a statement waited too long for a lock."""
        return getattr(error, "pgcode", None) == "55P03" or getattr(error, "sqlstate", None) == "55P03"

    def lock_holders(self) -> str:
        """Who holds the lock, for the message; empty where that cannot be found out."""
        return ""

    def close(self) -> None:
        module: Any = self.dialect.loaded_dbapi
        # a server that has ended meanwhile may be noticed only now; there is nothing left to close then
        with contextlib.suppress(Exception) if self.gone else contextlib.suppress(module.Error, OSError):
            self.connection.close()

    def connect(
        self,
        sandbox: Sandbox,
        dialect: Dialect,
        *,
        own: bool = False,
        args: Sequence[Any] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> ProxyConnection:
        """A new virtual connection.

        :param args: what the application's engine would have given to the driver's ``connect()``.
        :param parameters: the same, by keyword.
        :param dialect: that engine's dialect.
        :raises ConfigurationError: something of it can neither be honoured nor done without.
        """
        made = self.async_proxy_class if dialect.is_async else self.proxy_class
        settings, keywords = self.asked(args, parameters or {}, dialect)
        connection = made(self, sandbox, sandbox.client(own=own, settings=settings))
        connection.dialect = dialect
        connection.configure(keywords)
        return connection

    def asked(
        self, args: Sequence[Any], parameters: Mapping[str, Any], dialect: Dialect
    ) -> tuple[dict[str, object], Mapping[str, Any]]:
        """The settings of the server, and the keywords of the driver, that an engine asks for.

        :raises ConfigurationError: something can neither be honoured nor done without.
        """
        return {}, parameters

    def asked_of_postgresql(
        self, args: Sequence[Any], parameters: Mapping[str, Any]
    ) -> tuple[dict[str, object], Mapping[str, Any]]:
        """:meth:`asked`, of a driver of PostgreSQL."""
        if self._startup is None:
            own_args, own_parameters = self.dialect.create_connect_args(self.url) if self.url is not None else ((), {})
            self._startup = asked_of(self.driver, own_args, own_parameters).settings
        asked = asked_of(self.driver, args, parameters)
        return settings_beyond(asked.settings, self._startup), asked.driver


class ProxyConnection:
    """A connection of the application over the sandbox's wire; what is not standard goes to the physical one."""

    dialect: Dialect

    def __init__(self, wire: ProxyWire, sandbox: Sandbox, client: Client) -> None:
        self._wire = wire
        self._sandbox = sandbox
        self._client = client
        self._closed = False
        client.state = functools.partial(_state_of, weakref.ref(self))
        weakref.finalize(self, sandbox.abandon, client).atexit = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire.connection, name)

    def state(self) -> tuple[object, ...]:
        """How it behaves: what the application can change of it, besides the server's settings."""
        return (self._client.autocommit, self._client.read_only)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take over what the arguments of the driver's ``connect()`` say about the connection's own behaviour."""

    def cursor(self, *args: Any, **kwargs: Any) -> ProxyCursor:
        """A new cursor of the physical connection, for one client at a time."""
        self._check_open()
        with self._held():
            return self._cursor(self._wire.connection.cursor(*args, **kwargs))

    def _cursor(self, real: Any) -> ProxyCursor:
        return ProxyCursor(self, real)

    def commit(self) -> None:
        """Keep this connection's work until the test ends."""
        self._check_open()
        scheduler = self._sandbox.scheduler
        scheduler.acquire(self._client.ticket)
        try:
            if self._sandbox.commit_at_once(self._client):
                return
            if self._sandbox.status(self._client) == "failed":
                self._drive(self._sandbox.rollback(self._client))
            else:
                self._drive(self._sandbox.commit(self._client))
        finally:
            scheduler.release(self._client.ticket)

    def rollback(self) -> None:
        """Undo this connection's work."""
        self._check_open()
        self._rollback()

    def close(self) -> None:
        """Roll back and close; the wire stays open."""
        if not self._closed:
            self._rollback()
            self._sandbox.close(self._client)
            self._closed = True

    def _rollback(self) -> None:
        if self._sandbox.scheduler.inherited_from or self._wire.gone:
            return  # it is the other process's, or nobody's; a pool rolls back whatever it is given back
        try:
            with self._held():
                if not self._sandbox.has_nothing(self._client):
                    self._drive(self._sandbox.rollback(self._client))
        except SandboxBusy:  # the collector closes it in the middle of another statement: with the next one, then
            self._sandbox.abandon(self._client)

    def set_autocommit(self, value: bool) -> None:
        """Let each statement commit by itself, or not; to be called by the driver's own spelling of it."""
        if value != self._client.autocommit:
            if self._client.active and not self._client.each_statement:
                raise self._wire.error("ProgrammingError", "autocommit cannot be changed inside a transaction")
            self._client.autocommit = value

    def refuse_two_phase(self, *args: object, **kwargs: object) -> None:
        """``tpc_begin`` and its family.

        :raises SandboxEscape: always.
        """
        raise self._sandbox.note(
            SandboxEscape(
                "A two-phase transaction would outlive the transaction that the test runs in; nothing was sent.",
                cause="tpc_begin() or create_engine(..., twophase=True)",
                remedy=COMMITTING,
            )
        )

    tpc_begin = tpc_prepare = tpc_commit = tpc_rollback = tpc_recover = refuse_two_phase

    def __enter__(self) -> Any:
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        if exc_type is None:
            self.commit()
        else:
            self.rollback()

    def _check_open(self) -> None:
        if self._closed:
            raise self._wire.error("InterfaceError", "connection already closed")

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        scheduler = self._sandbox.scheduler
        scheduler.acquire(self._client.ticket)
        try:
            yield
        finally:
            scheduler.release(self._client.ticket)

    def _drive(self, flow: Flow) -> None:
        """Run a flow of the sandbox."""
        wire = self._wire
        wire.check_connection()
        try:
            command = next(flow)
            while True:
                try:
                    rows = wire.send(command)
                except BaseException as error:
                    if wire.is_cut_off(error):
                        raise
                    wire.failed(error)
                    command = flow.throw(error)
                else:
                    if command.lstrip()[:11].upper() == "ROLLBACK TO":
                        wire.broken = False
                    command = flow.send(rows)
        except StopIteration:
            return

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        """Run a statement of the application; ``call`` sends it (``None`` for its text as it is)."""
        self._check_open()
        statement = self._classify(text)
        if "?" in statement.settings:
            statement = with_parameter_names(statement, parameters)
        sandbox, client = self._sandbox, self._client
        sandbox.scheduler.acquire(client.ticket)
        try:
            self._wire.check_connection()
            replacement = None
            command = sandbox.at_once(client, statement)
            if command:
                self._wire.send(command)
            elif command is None:
                if statement.kind in _CONTROL:
                    return self._drive(sandbox.savepoint(client, statement))
                replacement = sandbox.replacement(client, statement)
                self._drive(sandbox.before(client, statement))
            try:
                result = call(replacement)
            except BaseException as error:
                if self._wire.is_cut_off(error) or not isinstance(error, Exception):
                    raise
                self._wire.failed(error)
                if not sandbox.rules.error_aborts:
                    self._drive(sandbox.failed(client, partly=many or self._keeps_part(statement)))
                self._explain(error)
                raise
            finally:
                if client.each_statement and self._wire.broken and not self._wire.gone:
                    self._drive(sandbox._recover(client))
            rowcount = -1 if many else getattr(real, "rowcount", -1)
            if not sandbox.is_over(client, statement, rowcount):
                self._drive(sandbox.after(client, statement, rowcount))
            return result
        finally:
            sandbox.scheduler.release(client.ticket)

    def _explain(self, error: Exception) -> None:
        """Add to a driver's error what the sandbox knows of it.

        :raises SandboxTimeout: it is about a lock that is held outside the sandbox.
        """
        self._sandbox.explain(self._client, error)
        if self._wire.is_lock_timeout(error):
            raise self._sandbox.lock_timeout(error, self._wire.lock_holders()) from error

    def _keeps_part(self, statement: Statement) -> bool:
        """Whether the statement, when it fails, keeps the rows that it has written already."""
        return False

    def _classify(self, text: Any) -> Statement:
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        return classify(text if isinstance(text, str) else str(text))


def _state_of(reference: weakref.ref[ProxyConnection]) -> object:
    connection = reference()
    return None if connection is None else connection.state()


class ProxyCursor:
    """A cursor over a cursor of the physical connection."""

    def __init__(self, connection: ProxyConnection, real: Any) -> None:
        object.__setattr__(self, "connection", connection)
        object.__setattr__(self, "_real", real)

    connection: ProxyConnection
    _real: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def execute(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a statement, inside the sandbox."""
        return self._returned(
            self.connection._run(
                operation,
                lambda replacement: self._real.execute(replacement or operation, *args, **kwargs),
                self._real,
                parameters=args[0] if args else next(iter(kwargs.values()), None),
            )
        )

    def executemany(self, operation: Any, parameters: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Run a statement for each set of parameters, inside the sandbox."""
        return self._returned(
            self.connection._run(
                operation,
                lambda replacement: self._real.executemany(replacement or operation, parameters, *args, **kwargs),
                self._real,
                many=True,
            )
        )

    def callproc(self, name: str, *args: Any) -> Any:
        """Call a procedure, inside the sandbox."""
        return self.connection._run(f"CALL {name}()", lambda _: self._real.callproc(name, *args), self._real)

    def fetchone(self) -> Any:
        return self._fetch("fetchone")

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        return self._fetch("fetchmany", *args, **kwargs)

    def fetchall(self) -> Any:
        return self._fetch("fetchall")

    def close(self) -> None:
        self._real.close()

    async def _async_soft_close(self) -> None:
        """An async engine over a synchronous wire: the rows must outlive this."""

    def _fetch(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._real, name)(*args, **kwargs)

    def _returned(self, result: Any) -> Any:
        return self if result is self._real else result
