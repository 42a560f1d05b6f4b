"""A PostgreSQL database that exists already: guarded, leased, emptied and built anew, and left empty.

What was there before stays where it is no table, view, function or type of ours (see :mod:`.foundation`): extensions,
what another role owns, an administrator's schemas.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TypeAlias

import psycopg
from sqlalchemy import URL, Connection

from ...errors import ConfigurationError, DatabaseError, ServerUnreachable
from ...reporting import doing, say, shown, without_secrets
from ..existing import MARK_TABLE, check_safe
from ..interface import Database, Request, create_in
from ..names import lock_key
from .admin import Admin, build_url
from .foundation import Foundation

LOCK = 1_146_242_134
PATIENCE = 60  # seconds to wait for another run that uses the same database

_LOOK = """
SELECT ARRAY(SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND c.relpersistence <> 't'
               AND n.nspname <> 'information_schema'
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                                                         AND d.deptype = 'e')),
       to_regclass('dbtestcase_mark') IS NOT NULL
"""

_USERS = """
SELECT concat_ws(' ', 'process', pid, 'of role', usename, 'from ' || host(client_addr), nullif(application_name, ''))
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

# Without a percent sign, which drivers take for a placeholder: it also runs inside the tests' own transaction.
# CASCADE takes foreign keys and views over a table with it; what went with another is no longer found by its turn.
_DROP_ALL = """
DO $dbtestcase$
DECLARE doomed record;
BEGIN
    FOR doomed IN
        SELECT 1 AS turn, 'pg_class'::regclass AS class, c.oid AS object,
               CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                              WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
          AND pg_has_role(c.relowner, 'USAGE')
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        UNION ALL
        SELECT 2, 'pg_proc'::regclass, p.oid,
               CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE pg_has_role(p.proowner, 'USAGE') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        UNION ALL
        SELECT 3, 'pg_type'::regclass, t.oid, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE (t.typtype IN ('e', 'd', 'r')
               OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
          AND pg_has_role(t.typowner, 'USAGE') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        ORDER BY turn
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = doomed.class AND d.objid = doomed.object
                                                        AND d.deptype IN ('e', 'i') AND d.refobjid <> d.objid);
        IF doomed.turn = 1 AND EXISTS (SELECT FROM pg_class WHERE oid = doomed.object) THEN
            EXECUTE 'DROP ' || doomed.kind || ' ' || doomed.object::regclass::text || ' CASCADE';
        ELSIF doomed.turn = 2 AND EXISTS (SELECT FROM pg_proc WHERE oid = doomed.object) THEN
            EXECUTE 'DROP ' || doomed.kind || ' ' || doomed.object::regprocedure::text || ' CASCADE';
        ELSIF doomed.turn = 3 AND EXISTS (SELECT FROM pg_type WHERE oid = doomed.object) THEN
            EXECUTE 'DROP ' || doomed.kind || ' ' || doomed.object::regtype::text || ' CASCADE';
        END IF;
    END LOOP;
END $dbtestcase$
"""


_KeepRows: TypeAlias = Callable[[Request, Admin, str, Callable[[URL], None]], URL]


class ExistingDatabase(Database):
    """The database that the URL names, held by an advisory lock in it."""

    def __init__(self, request: Request, keep_rows: _KeepRows) -> None:
        self.url = request.server_url
        self._keep_rows = keep_rows
        if not self.url.database:
            raise ConfigurationError(
                f'database = "existing" needs the name of a database in the URL ({shown(self.url)}).',
                remedy="write it after the host: postgresql://host/shop_test",
            )
        self._request = request
        self._closed = False
        self._changed = False
        self._foundation: Foundation | None = None
        self.crowded = True
        self.built = False
        # The timeout is for every statement: none of this connection may wait for ever.
        self._admin = Admin(request.server_url, request.server_url.database, lock_timeout=PATIENCE)
        self._renewals = self._admin.renewals
        try:
            self._check()
            with doing(f"waiting for another run that uses the database {self.name!r}"):
                self._lock()
            if not request.transactional:
                self.reclone()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        relations, marked = self._admin.rows(_LOOK)[0]
        check_safe(shown(self.url), self.name, relations=relations, marked=marked)

    def _lock(self) -> None:
        try:
            self._admin.lock(LOCK, lock_key(self.name))
        except psycopg.errors.LockNotAvailable as error:
            raise self._busy(error) from error
        self._check()  # the run that we waited for may have changed what is there

    def _busy(self, error: psycopg.Error) -> DatabaseError:
        with closing(Admin(self._request.server_url, self._request.server_url.database)) as asking:
            who = ", ".join(str(row[0]) for row in asking.rows(_USERS)) or "nobody any more"
        return DatabaseError(
            f"The database {self.name!r} ({shown(self.url)}) was in use by others for {PATIENCE} s"
            f" ({str(error).strip()}); connected: {who}.",
            cause='several processes (workers, or a run that was forgotten) share one database = "existing".',
            remedy="run in one process, give each worker a database of its own in its URL, or end the others.",
        )

    def renew_lease(self) -> bool:
        try:
            self._admin.renew()  # waits for a run that has come between
        except psycopg.errors.LockNotAvailable as error:
            raise self._busy(error) from error
        if self._renewals == self._admin.renewals:
            return False
        self._renewals = self._admin.renewals
        self._check()
        return self._changed

    def create_in(self, connection: Connection) -> None:
        if self.built:
            super().create_in(connection)
        connection.exec_driver_sql(_DROP_ALL)
        create_in(self._request.recipe, connection)

    def reclone(self) -> None:
        self._changed = True
        self._drop_all()
        if self._foundation is None:
            self._foundation = Foundation(self._admin)
        self._admin.run(f"CREATE TABLE {MARK_TABLE} (made_at timestamptz DEFAULT now())")
        self._request.recipe.build(build_url(self.url, self.name))
        self.built = True

    def keep(self, test: str, fill: Callable[[URL], None]) -> URL:
        # no template: nothing but the rows is to be left on a server that exists already
        uncached = replace(self._request, settings=replace(self._request.settings, cache=None))
        return self._keep_rows(uncached, self._admin, test, fill)

    def _drop_all(self) -> None:
        try:
            self._admin.run(_DROP_ALL)
            if self._foundation is not None:
                self._foundation.restore()
        except psycopg.errors.LockNotAvailable as error:
            raise self._busy(error) from error

    def close(self) -> None:
        if self._closed or self._admin.inherited:
            return
        self._closed = True
        try:
            if self._changed:
                self._drop_all()
        except (psycopg.OperationalError, ServerUnreachable) as error:
            reason = without_secrets(str(error).splitlines()[0], self.url)
            say(f"the database {self.name} was not emptied, the next run there does: {reason}")
        finally:
            self._admin.close()
