"""asyncpg: a wire over SQLAlchemy's adapted connection, in a loop of its own."""

from __future__ import annotations

from typing import Any

from ..sandbox.session_settings import Rows
from .portal import PortalWire

__all__ = ["AsyncpgWire"]


class AsyncpgWire(PortalWire):
    """The wire of a sandbox that speaks asyncpg."""

    @property
    def _asyncpg(self) -> Any:
        return self.connection.real._connection

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
        if self.connection.portal.was_cut_off():
            self.broken = True  # the driver has cancelled the statement

    def forget_plans(self) -> None:
        cache = self.connection.real._prepared_statement_cache
        if cache is not None:
            cache.clear()
        self.connection.portal.run(self._asyncpg.reload_schema_state())

    def lock_holders(self) -> str:
        return ""
