"""A MySQL or MariaDB database that exists already: guarded, leased, emptied and built anew, and left empty."""

from __future__ import annotations

from ...errors import ConfigurationError, DatabaseError, SchemaError
from ...reporting import doing, shown
from ..existing import MARK_TABLE, check_safe
from ..interface import Database, Request
from .admin import PATIENCE, Admin, build_url
from .content import drop_everything, read_content, relations
from .link import quoted


def refuse_without_transactions(name: str, tables: list[tuple[str, str]]) -> None:
    """Refuse tables whose rows a rollback leaves where they are."""
    if tables:
        shown = ", ".join(f"{table} ({engine})" for table, engine in tables)
        raise SchemaError(
            f"Tables in {name!r} have an engine without transactions: {shown}.",
            cause="mysql_engine in the model, or default_storage_engine of the server.",
            remedy="use InnoDB, or TruncatingDatabaseTest, which puts rows back without a rollback.",
        )


class ExistingDatabase(Database):
    """The database that the URL names.  Its tables are always made for real: here DDL commits by itself."""

    def __init__(self, request: Request) -> None:
        self.url = request.server_url
        self._request = request
        self._closed = False
        self._changed = False
        if not self.url.database:
            raise ConfigurationError(
                f'database = "existing" needs the name of a database in the URL ({shown(self.url)}).',
                remedy="write it after the host: mariadb+pymysql://host/shop_test",
            )
        self._admin = Admin(request.server_url, self.url.database)
        try:
            self._check()
            with doing(f"waiting for another run that uses the database {self.name!r}"):
                self._lock()
            self._check()  # the run that we waited for may have changed what is there
            self.reclone()
            if request.transactional:
                refuse_without_transactions(self.name, read_content(self._admin, self.name).engines)
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        names = [name for name, _ in relations(self._admin, self.name)]
        check_safe(shown(self.url), self.name, relations=names, marked=MARK_TABLE in names)

    def _lock(self) -> None:
        if not self._admin.lock(self.name, wait=PATIENCE):
            raise DatabaseError(
                f"The database {self.name!r} ({shown(self.url)}) was in use by another run for {PATIENCE} s.",
                cause='several processes (workers, or a run that was forgotten) share one database = "existing".',
                remedy="run in one process, give each worker a database of its own in its URL, or end the other run.",
            )

    def reclone(self) -> None:
        self._changed = True
        drop_everything(self._admin, self.name)
        self._admin.run(
            f"CREATE TABLE {quoted(MARK_TABLE)} (made_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP) ENGINE = InnoDB"
        )
        self._request.recipe.build(build_url(self.url, self.name))

    def close(self) -> None:
        if self._closed or self._admin.inherited:
            return
        self._closed = True
        try:
            if self._changed:
                drop_everything(self._admin, self.name)
        finally:
            self._admin.close()
