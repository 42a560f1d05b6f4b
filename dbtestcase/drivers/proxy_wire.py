"""The wire of a sandbox that speaks any DBAPI driver: what PEP 249 and SQLAlchemy's dialect can do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Dialect

from ..reporting import says
from ..sandbox import NO_ARGUMENTS, Arguments, Rows, Rules, Sandbox
from .arguments import asked_of, settings_beyond
from .sockets import closing_files, descriptor_of, shut_down


class ProxyWire:
    """The physical connection of a sandbox, opened by a SQLAlchemy dialect, in the driver's autocommit mode."""

    def __init__(self, dialect: Dialect, connection: Any, rules: Rules, url: URL) -> None:
        self.driver: str = dialect.driver
        self.dialect = dialect
        self.connection = connection
        self.rules = rules
        self.broken = False  # a statement failed and the server waits for a rollback
        self.url = url
        """Where it was opened."""
        self._startup: dict[str, str] | None = None
        self.ended_by = ""
        """The statement that ended the outer transaction, if one did."""
        self._gone = ""
        self._begun = False
        self.lock = threading.RLock()

    @property
    def proxy_class(self) -> type[Any]:
        """The class of the virtual connections, a ``ProxyConnection``."""
        raise NotImplementedError

    @property
    def async_proxy_class(self) -> type[Any]:
        """The class of the virtual connections of async engines."""
        return self.proxy_class

    @property
    def drivers(self) -> frozenset[str]:
        """The drivers whose engines can be led here."""
        return frozenset({self.driver})

    def run(self, *statements: str) -> Rows:
        rows: Rows = []
        for statement in self.rules.outer(*statements):
            rows = self.send(statement) or rows
        self.broken = False
        if self.rules.begin in statements or self.rules.end in statements:
            self._begun = self.rules.begin in statements
        return rows

    def send(self, command: str) -> Rows:
        """Run one command of the sandbox's own; the wire has looked at what is raised (:meth:`is_cut_off`)."""
        cursor = self.connection.cursor()
        try:
            cursor.execute(command)
            rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        except BaseException as error:
            if not self.is_cut_off(error):
                cursor.close()
            raise
        cursor.close()
        return rows

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
        """Make sure that the physical connection can be used: the driver's ``InterfaceError`` otherwise."""
        if self.gone:
            raise self.error("InterfaceError", f"the connection of the sandbox is lost: {self.gone}")

    def is_lock_timeout(self, error: BaseException) -> bool:
        """Whether a statement waited too long for a lock."""
        return says(error, {"55P03"})

    def lock_holders(self) -> str:
        """Who holds the lock, for the message; empty where that cannot be found out."""
        return ""

    def close(self) -> None:
        module: Any = self.dialect.loaded_dbapi
        # a server that has ended meanwhile may be noticed only now; there is nothing left to close then
        expected = (Exception,) if self.gone else (module.Error, OSError)
        with contextlib.suppress(*expected), closing_files(self.connection):
            self.connection.close()

    def connect(self, sandbox: Sandbox, dialect: Dialect, given: Arguments = NO_ARGUMENTS, *, own: bool = False) -> Any:
        """A new virtual connection: see :meth:`Wire.connect`."""
        made = self.async_proxy_class if dialect.is_async else self.proxy_class
        settings, keywords = self.asked(*given, dialect)
        connection = made(self, sandbox, sandbox.client(own=own, settings=settings))
        connection.dialect = dialect
        connection.configure(keywords)
        return connection

    def asked(
        self, args: Sequence[Any], parameters: Mapping[str, Any], dialect: Dialect
    ) -> tuple[dict[str, object], Mapping[str, Any]]:
        """The settings of the server, and the keywords of the driver, that an engine asks for and can be given."""
        return {}, parameters

    def asked_of_postgresql(
        self, args: Sequence[Any], parameters: Mapping[str, Any], dialect: Dialect
    ) -> tuple[dict[str, object], Mapping[str, Any]]:
        """:meth:`asked`, of a driver of PostgreSQL."""
        if self._startup is None:
            self._startup = asked_of(self.driver, *self.dialect.create_connect_args(self.url)).settings
        asked = asked_of(self.driver, args, parameters)
        return settings_beyond(asked.settings, self._startup), asked.driver
