"""asyncpg: a wire over SQLAlchemy's adapted connection, in a loop of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect

from ..sandbox.session_settings import Rows
from .asyncpg_codecs import METHODS, Codecs, Registration, Registrations
from .dbapi import ProxyConnection
from .portal import PortalConnection, PortalWire

__all__ = ["AsyncpgWire"]


class AsyncpgWire(PortalWire):
    """The wire of a sandbox that speaks asyncpg."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.codecs = Codecs(self._asyncpg)

    @property
    def proxy_class(self) -> type[ProxyConnection]:
        return _Connection

    def become(self, codecs: Registrations, command_timeout: float | None) -> None:
        """Behave as a virtual connection that has asked for this."""
        driver = self._asyncpg
        if driver._config.command_timeout != command_timeout:
            driver._config = driver._config._replace(command_timeout=command_timeout)
        if self.codecs.current is not codecs:
            self.connection.portal.run(self.codecs.apply(codecs))
            self._forget_statements()

    @property
    def _asyncpg(self) -> Any:
        return self.connection.real._connection

    def asked(self, args: Sequence[Any], parameters: Mapping[str, Any], dialect: Dialect) -> Any:
        return self.asked_of_postgresql(args, parameters)

    def send(self, command: str) -> Rows:
        portal = self.connection.portal
        if command.lstrip().partition(" ")[0].upper() in ("SELECT", "WITH"):
            return [tuple(row) for row in portal.run(self._asyncpg.fetch(command))]
        portal.run(self._asyncpg.execute(command))
        return []

    def in_transaction(self) -> bool:
        return bool(self._asyncpg.is_in_transaction()) and not self.gone

    def cut(self, why: str) -> None:
        self._gone = why
        self.connection.portal.start(self._asyncpg.terminate)

    @property
    def gone(self) -> str:
        return self._gone or ("it was closed" if self._asyncpg.is_closed() else "")

    def failed(self, error: BaseException) -> None:
        if getattr(error.__cause__ or error, "severity", None):  # the server's: it has not heard of a wrong argument
            self.broken = True

    def cut_off(self, error: BaseException) -> None:
        if self.connection.portal.was_cut_off() or isinstance(error, TimeoutError):
            self.broken = True  # the driver has cancelled the statement

    def forget_plans(self) -> None:
        self._forget_statements()
        self.connection.portal.run(self._asyncpg.reload_schema_state())

    def _forget_statements(self) -> None:
        cache = self.connection.real._prepared_statement_cache
        if cache is not None:
            cache.clear()

    def lock_holders(self) -> str:
        return ""


class _Connection(PortalConnection):
    """Looks like SQLAlchemy's adapted connection of asyncpg."""

    _wire: AsyncpgWire

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._codecs: Registrations = self._wire.codecs.interned({})
        self._command_timeout: float | None = None

    def state(self) -> tuple[object, ...]:
        return (*super().state(), id(self._codecs))

    def configure(self, parameters: Mapping[str, Any]) -> None:
        if parameters.get("command_timeout") is not None:
            self._command_timeout = float(parameters["command_timeout"])

    def _run(self, text: Any, call: Any, real: Any, *, many: bool = False, parameters: Any = None) -> Any:
        def as_mine(replacement: str | None) -> Any:
            self._wire.become(self._codecs, self._command_timeout)
            return call(replacement)

        return super()._run(text, as_mine, real, many=many, parameters=parameters)

    def own_method(self, name: str) -> Any:
        return functools.partial(self._register, name) if name in METHODS else super().own_method(name)

    async def _register(self, method: str, typename: str, *, schema: str = "public", **arguments: Any) -> None:
        """``set_type_codec()`` and its kind, for this connection only."""
        before = self._codecs
        wanted = {key: value for key, value in before.items() if key != (schema, typename)}
        if method != "reset_type_codec":
            wanted[schema, typename] = Registration(method, arguments)
        self._codecs = self._wire.codecs.interned(wanted)
        if self._wire.connection.portal.runs_here or self._wire.codecs.current is self._codecs:
            return  # with the next statement
        turns = self._sandbox.turns
        await turns.acquire_async(self._client.turn)
        try:
            self._drive(self._sandbox.recover_for(self._client))
            self._wire.become(self._codecs, self._command_timeout)
        except BaseException:
            self._codecs = before
            raise
        finally:
            turns.release(self._client.turn)
