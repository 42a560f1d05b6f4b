"""psycopg2: what its connections and cursors offer beyond PEP 249."""

from __future__ import annotations

import contextlib
import re
import weakref
from collections.abc import Mapping
from typing import Any

from psycopg2 import ROWID, extensions

from ..errors import SandboxEscape
from ..reporting import for_psycopg
from ..sandbox import COMMITTING, never_notified
from .arguments import refused, same_encoding
from .dbapi import ProxyConnection
from .own_connections import lock_holders
from .proxy_wire import ProxyWire
from .psycopg2_cursors import CursorOverAnother, NamedCursor, Psycopg2Cursor
from .psycopg2_functions import cursor_factory_of, register_type
from .psycopg2_session import SessionAttributes

_WORD = re.compile("[A-Z]")
_READY, _BEGIN = 1, 2  # STATUS_READY, STATUS_BEGIN


class Psycopg2Wire(ProxyWire):
    """The wire of a sandbox that speaks psycopg2."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._cursor = self.connection.cursor()
        for caster in (*vars(extensions).values(), ROWID):  # the sandbox's own rows: not by the application's types
            if isinstance(caster, type(ROWID)):
                register_type()(caster, self._cursor)
        self.notices: Any = None
        """Where those of the server go now: to the connection whose statement runs."""
        self.string_types: Any = None
        """Whose types its rows are read by now."""

    asked = ProxyWire.asked_of_postgresql

    def send(self, command: str) -> Any:
        cursor = self._cursor  # one is enough, and to make one takes longer than to use it
        try:
            cursor.execute(command)
        except BaseException as error:
            self.is_cut_off(error)
            raise
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
        args, parameters = for_psycopg(self.url)
        return lock_holders(self.connection.info.backend_pid, *args, **parameters)


class Psycopg2Connection(SessionAttributes):
    """Looks like a ``psycopg2.extensions.connection``."""

    _wire: Psycopg2Wire
    _mark = 0  # of psycopg2's own: how often a transaction was ended, and the named cursors with it

    def commit(self) -> None:
        self._mark += self.status == _BEGIN
        super().commit()

    def rollback(self) -> None:
        self._mark += self.status == _BEGIN
        super().rollback()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return extensions.connection

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.string_types: dict[int, Any] = {}
        """The types that are registered on this connection, by oid."""
        self.binary_types: dict[int, Any] = {}
        self.cursor_factory: Any = None
        self.notices: Any = []
        """What the server has said to this connection."""
        self._entered = False
        self._cursors: list[weakref.ref[Psycopg2Cursor]] = []

    def register(self, caster: Any) -> None:
        """What ``register_type()`` does to a connection: it holds for its cursors, whenever they were made."""
        self.string_types.update(dict.fromkeys(caster.values, caster))
        self._wire.string_types = None

    def hear(self) -> None:
        """What the server says from now on is said to this connection; to be called with the wire held."""
        wire = self._wire
        if wire.notices is not self.notices:
            wire.connection.notices = wire.notices = self.notices
        if wire.string_types is not self.string_types:
            types = wire.connection.string_types
            types.clear()
            types.update(self.string_types)
            wire.string_types = self.string_types

    @property
    def notifies(self) -> Any:
        """Empty, as long as the connection listens to nothing; refused where it would listen in vain."""
        self._refuse_to_listen("notifies")
        return self._notifies

    @notifies.setter
    def notifies(self, value: Any) -> None:
        self._notifies = value

    _notifies: Any = ()

    def poll(self) -> Any:
        """See whether anything has been said: nothing is, in the one transaction of all."""
        self._check_open()
        self._refuse_to_listen("poll()")
        return self._wire.connection.poll()

    def fileno(self) -> int:
        """What ``select()`` waits for."""
        self._check_open()
        self._refuse_to_listen("fileno()")
        return int(self._wire.connection.fileno())

    def _refuse_to_listen(self, what: str) -> None:
        if self._sandbox.session.listens(self._client):
            raise self._sandbox.note(never_notified(what))

    @property
    def info(self) -> Any:
        """What psycopg2 knows of the connection, and the state of its own transaction."""
        return _Info(self)

    def get_parameter_status(self, name: str) -> Any:
        """What the server has told of a setting: with this connection's own in force."""
        return self.physical.get_parameter_status(name)

    @property
    def physical(self) -> Any:
        """The physical connection, with this one's settings in force: how to quote is one of them."""
        if not self._client.failed and not self._closed:
            with self._held():
                self._drive(self._sandbox.settle_settings(self._client))
        return self._wire.connection

    def __enter__(self) -> Any:
        self._check_open()
        if self._entered:
            raise self._wire.error("ProgrammingError", "the connection cannot be re-entered recursively")
        self._entered = True
        if self._client.autocommit:
            self._client.block += 1  # psycopg2 begins a transaction all the same
        return self

    def __exit__(self, exc_type: object, *exc: object) -> None:
        block = self._client.autocommit and self._client.block > 0
        try:
            super().__exit__(exc_type, *exc)
        finally:
            self._entered = False
            if block:
                self._client.block -= 1

    def state(self) -> tuple[object, ...]:
        own = (tuple(self.string_types.values()), self.cursor_factory, self.isolation_level, self.deferrable)
        return (*super().state(), *own)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        made = parameters.get("connection_factory")
        if made is not None:
            self.cursor_factory = cursor_factory_of(made)
        self.cursor_factory = parameters.get("cursor_factory") or self.cursor_factory
        if parameters.get("client_encoding"):
            self.set_client_encoding(parameters["client_encoding"])

    def set_client_encoding(self, encoding: str) -> None:
        """Refused, unless it is the one in use."""
        there = self._wire.connection.encoding
        if not same_encoding(encoding, there):
            raise refused("psycopg2", "client_encoding", f"{encoding} beside {there}")

    def cursor(
        self,
        name: str | None = None,
        cursor_factory: Any = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> Psycopg2Cursor:
        physical, factory = self._wire.connection, cursor_factory or self.cursor_factory
        if self._closed or physical.closed:
            self._check_open()
            physical.cursor()  # which says the same
        made: Psycopg2Cursor
        if name is not None:
            made = NamedCursor(self, physical.cursor(cursor_factory=factory), name, withhold, scrollable)
        elif withhold or scrollable is not None:
            option = "withhold" if withhold else "scrollable"
            raise self._wire.error("ProgrammingError", f"trying to set .{option} on unnamed cursor")
        elif factory is None or factory in (extensions.cursor, Psycopg2Cursor):
            made = Psycopg2Cursor(physical)
            made._connection = self
        else:
            made = CursorOverAnother(self, physical.cursor(cursor_factory=factory))
        cursors = self._cursors
        cursors.append(weakref.ref(made))
        if len(cursors) > self._many:
            cursors[:] = [each for each in cursors if each() is not None]
            self._many = 2 * len(cursors) + 50
        return made

    _many = 50
    """With how many it looks which cursors are gone."""

    def close(self) -> None:
        super().close()
        for each in self._cursors:
            if (cursor := each()) is not None:  # whose rows end with their connection
                extensions.cursor.close(cursor._real)

    def _text(self, operation: Any) -> str:
        if isinstance(operation, bytes):
            return operation.decode(errors="replace")
        if hasattr(operation, "as_string"):
            return str(operation.as_string(self._wire.connection))
        return str(operation)

    def _classify(self, text: Any) -> Any:
        return super()._classify(self._text(text))

    def _run(self, text: Any, call: Any, real: Any, **keywords: Any) -> Any:
        if real.closed and not self._wire.gone:  # said here: from below it would look as if the wire were lost
            raise self._wire.error("InterfaceError", "cursor already closed")

        def heard(replacement: Any) -> Any:
            self.hear()
            return call(replacement)

        return super()._run(text, heard, real, **keywords)

    @property
    def closed(self) -> int:
        return 1 if self._closed else int(self._wire.connection.closed)

    @property
    def status(self) -> int:
        client = self._client
        return _BEGIN if (client.active or client.failed) and not client.each_statement else _READY

    def get_transaction_status(self) -> int:
        return {"idle": 0, "active": 2, "failed": 3}[self._sandbox.status(self._client)]

    def lobject(self, *args: Any, **kwargs: Any) -> None:
        """Refused: it looks for the transaction of the physical connection."""
        raise self._sandbox.note(
            SandboxEscape(
                "lobject() would open a large object in a transaction of its own; it was not called.",
                cause="psycopg2's own interface to large objects, which the sandbox cannot follow",
                remedy="use the server's functions (lo_from_bytea(), lo_get(), lo_put()), or " + COMMITTING,
            )
        )

    def cancel(self) -> None:
        self._check_open()
        if self._sandbox.scheduler.has_wire(self._client.ticket):  # else what runs is somebody else's
            self._wire.connection.cancel()

    def reset(self) -> None:
        """Roll back and take back every ``SET``."""
        self.rollback()
        self.set_session("default", "default", "default", autocommit=False)
        with contextlib.closing(self.cursor(cursor_factory=extensions.cursor)) as cursor:
            cursor.execute("RESET ALL; SET SESSION AUTHORIZATION DEFAULT")
        self.commit()


class _Info:
    """Looks like a ``psycopg2.extensions.ConnectionInfo``."""

    def __init__(self, connection: Psycopg2Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection._wire.connection.info, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return extensions.ConnectionInfo

    @property
    def transaction_status(self) -> int:
        return 4 if self._connection.closed else self._connection.get_transaction_status()

    @property
    def status(self) -> int:
        return 1 if self._connection.closed else int(self._connection._wire.connection.info.status)

    def parameter_status(self, name: str) -> Any:
        return self._connection.get_parameter_status(name)
