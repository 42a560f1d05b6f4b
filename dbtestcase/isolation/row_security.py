"""Row-level security: policies do not count for a superuser, and a disposable server's only role is one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ..errors import RowSecurityWarning

__all__ = ["UNENFORCED_POLICIES", "warn_of_policies"]

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
