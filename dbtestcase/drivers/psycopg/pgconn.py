"""psycopg: the PGconn of a virtual connection, another object over the physical one's connection of libpq.

psycopg asks a PGconn for everything, and where it is written in C it takes nothing but a real one.  So a virtual
connection has an object of that class of its own: it points to the same connection of libpq, knows the status of the
virtual transaction, and points to nothing once its connection is closed: psycopg itself then answers as it should.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import PGconn, TransactionStatus, __impl__

from ...errors import ConfigurationError

_STATUSES = {"idle": TransactionStatus.IDLE, "active": TransactionStatus.INTRANS, "failed": TransactionStatus.INERROR}
_WORD = ctypes.sizeof(ctypes.c_void_p)
_Base: Any = PGconn


def _place(pgconn: Any, value: int) -> int:
    """Where an object of psycopg's C class keeps a value of its own, in bytes from its beginning."""
    for place in range(2 * _WORD, _Base.__basicsize__, _WORD):
        if ctypes.c_void_p.from_address(id(pgconn) + place).value == value:
            return place
    raise ConfigurationError(
        f"psycopg {psycopg.__version__} ({__impl__}) keeps its connection of libpq where dbtestcase does not find it.",
        cause="a version of psycopg that dbtestcase does not know",
        remedy="pip install 'psycopg[binary]>=3.2,<3.4'",
    )


class VirtualPGconn(_Base):  # type: ignore[misc]
    """The PGconn of a virtual connection."""

    _owner: Callable[[], Any] = staticmethod(lambda: None)
    _pointer: Any = None
    """Where it points, as ctypes sees its memory."""

    @classmethod
    def over(cls, real: Any) -> VirtualPGconn:
        """A new one over the physical connection's; it has to be let go before that is finished."""
        made = cls.__new__(cls)
        if __impl__ == "python":
            made.notice_handler = made.notify_handler = None
            made._pgconn_ptr = real._pgconn_ptr
        else:
            made._pointer = ctypes.c_void_p.from_address(id(made) + _place(real, real.pgconn_ptr))
            made._pointer.value = real.pgconn_ptr
            # psycopg finishes at its end what its own process has made: this is nobody's
            process = os.getpid().to_bytes(4, sys.byteorder).ljust(_WORD, b"\0")
            place = _place(made, int.from_bytes(process, sys.byteorder))
            ctypes.c_void_p.from_address(id(made) + place).value = None
        return made

    def let_go(self) -> None:
        """Point to nothing: what is asked of it from now on is asked of a closed connection."""
        if self._pointer is not None:
            self._pointer.value = None
        else:
            self._pgconn_ptr = None

    __del__ = let_go

    def belongs_to(self, connection: Any) -> None:
        """Answer for a virtual connection, and no longer than it lives."""
        self._owner = weakref.ref(connection)
        weakref.finalize(connection, VirtualPGconn.let_go, self).atexit = False

    # -- what is the virtual connection's own

    @property
    def transaction_status(self) -> int:
        real = _real_status(self)
        owner = self._owner()
        if owner is None or real == TransactionStatus.UNKNOWN or real == TransactionStatus.ACTIVE:
            return int(real)
        return _STATUSES[owner.status]

    def finish(self) -> None:
        owner = self._owner()
        try:
            if owner is not None:
                owner.end()
        finally:
            self.let_go()

    def reset(self) -> None:
        """Refused: what would be made anew is the connection of all.

        :raises SandboxEscape: always.
        """
        raise self._owner().refuse_reset()

    reset_start = reset

    # -- statements that go past psycopg's cursors

    def exec_(self, command: bytes) -> Any:
        return self._run(command, super().exec_)

    def exec_params(self, command: bytes, *args: Any, **kwargs: Any) -> Any:
        return self._run(command, super().exec_params, *args, **kwargs)

    def _run(self, command: bytes, execute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        owner = self._owner()
        if owner is None or not isinstance(command, bytes):
            return execute(command, *args, **kwargs)
        return owner.run_raw(command, lambda text: execute(text, *args, **kwargs))


_real_status = _Base.transaction_status.__get__
