"""What runs share: connections that rest while nobody uses them, and policies that do not bind the role of the tests.

A process that goes through classes of several schemas would hold a connection for each of them until it ends: on a
server that others use as well, they are given up, and made again when they are needed.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Protocol

from ..errors import RowSecurityWarning


class Resting(Protocol):
    """What holds connections to one database between the classes that use it."""

    def rest(self) -> None:
        """Close the connections, if no class uses them and the server is not ours alone."""

    def wake(self) -> None:
        """Have connections again; does nothing where it has."""


_awake: weakref.WeakSet[Resting] = weakref.WeakSet()


def begin_use(run: Resting) -> None:
    """A class begins on ``run``: the others rest, and it wakes up."""
    for other in list(_awake):
        if other is not run:
            other.rest()
    run.wake()
    _awake.add(run)


UNENFORCED_POLICIES = (
    "SELECT r.rolname, string_agg(DISTINCT p.polrelid::regclass::text, ', ') FROM pg_catalog.pg_policy p "
    "JOIN pg_catalog.pg_class c ON c.oid = p.polrelid AND c.relrowsecurity "
    "JOIN pg_catalog.pg_roles r ON r.rolname = current_user AND (r.rolsuper OR r.rolbypassrls) GROUP BY 1"
)
"""PostgreSQL's query for a role that passes over policies, and the policies' tables; perhaps no row."""


def warn_of_policies(rows: Sequence[Sequence[object]]) -> None:
    """Warn if there are policies that the tests will not notice."""
    for role, tables in rows:
        warnings.warn(
            f"Row-level security is not in force: the tests run as {role!r}, whom the policies of {tables} do not bind "
            "(a superuser passes over them, also with FORCE ROW LEVEL SECURITY). Let the application's connections "
            "take the role that they have in production: connect_args={'options': '-c role=shop_app'}, or SET ROLE "
            "in a connect listener of the engine (docs/howto: Row-level security).",
            RowSecurityWarning,
            stacklevel=2,
        )
