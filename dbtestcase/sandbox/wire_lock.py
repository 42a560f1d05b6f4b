"""What stands in for the lock of a driver's connection."""

from __future__ import annotations

from .scheduler import Scheduler
from .tickets import Ticket


class WireLock:
    """``with``, or ``async with``: a client has the wire."""

    __slots__ = ("_scheduler", "_ticket")

    def __init__(self, scheduler: Scheduler, ticket: Ticket) -> None:
        self._scheduler, self._ticket = scheduler, ticket

    def __enter__(self) -> None:
        self._scheduler.acquire(self._ticket)

    def __exit__(self, *exc_info: object) -> None:
        self._scheduler.release(self._ticket)

    async def __aenter__(self) -> None:
        await self._scheduler.acquire_async(self._ticket)

    async def __aexit__(self, *exc_info: object) -> None:
        self._scheduler.release(self._ticket)

    def locked(self) -> bool:
        return False
