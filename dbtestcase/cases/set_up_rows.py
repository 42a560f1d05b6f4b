"""Rows that ``setUpClass()`` writes: nobody can make them again where they are lost, as ``setUpTestData()`` can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

from ..errors import LeakError
from ..sandbox import classify

__all__ = ["SetUpRows"]


class SetUpRows:
    """Notes whether anything is written from the time that class data are made until they are complete.

    :param label: how messages call the class.
    :param carries: whether the statements of a connection reach the test database.
    """

    def __init__(self, label: str, carries: Callable[[Connection], bool]) -> None:
        self._label = label
        self._carries = carries
        self._wrote = self._watches = False

    def watch(self) -> None:
        """Begin, when ``setUpTestData()`` has ended."""
        self._watches = True
        event.listen(Engine, "after_cursor_execute", self._note)

    def complete(self) -> None:
        """Class data are complete."""
        if self._watches:
            self._watches = False
            event.remove(Engine, "after_cursor_execute", self._note)

    def refuse_if_lost(self) -> None:
        """The class begins again.

        :raises LeakError: what it wrote in ``setUpClass()`` is lost.
        """
        if self._wrote:
            raise LeakError(
                f"What setUpClass() of {self._label} wrote after super().setUpClass() is lost: the test database had "
                "to be begun again, and setUpClass() is not called again.",
                cause="the connection was lost, or an earlier test changed more than rows: see the first error",
                remedy="write these rows in setUpTestData(), which is called again where the database is",
            )

    def _note(self, connection: Connection, cursor: Any, statement: str, *rest: object) -> None:
        if not self._wrote and self._carries(connection) and classify(statement).writes:
            self._wrote = True
