"""PostgreSQL: databases cloned from templates, leased by advisory locks.

What tells a template, a database in use and a leftover apart is in :mod:`dbtestcase.backends.postgresql.catalog`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import LiteralString

import psycopg
from psycopg import sql
from sqlalchemy import URL

from ...errors import CannotCreateDatabase, DatabaseError, ServerUnreachable
from ...reporting import doing, limit_named_by, say, shown, without_secrets
from ..inputs import recorded, template_fingerprint
from ..interface import Backend, Database, Request
from ..names import database_name, kept_name, template_name
from ..recipes import DerivedRecipe, Recipe, kind_of, preparing
from . import catalog as catalogs
from .admin import Admin, build_url
from .catalog import Catalog
from .existing import ExistingDatabase


class PostgreSQLBackend(Backend):
    """Makes, leases and drops databases on a PostgreSQL server (13 or later)."""

    def create(self, request: Request) -> Database:
        admin = Admin.shared(request.server_url)
        try:
            database = PostgreSQLDatabase(admin, request)
        except BaseException:
            admin.close()
            raise
        try:
            for orphan in database.catalog.orphans():
                catalogs.drop_unless_in_use(admin, orphan)
            for kept in catalogs.outdated_kept(database.catalog):
                catalogs.drop_unless_in_use(admin, kept)
        except BaseException:
            database.close()
            raise
        return database

    def existing(self, request: Request) -> Database:
        return ExistingDatabase(request, keep_rows)

    def answer(self, server_url: URL) -> str:
        with closing(Admin(server_url)) as admin:
            ((role,),) = admin.rows("SELECT current_user")
            return f"PostgreSQL {admin.version_name}, as the role {role}"

    def prune(self, server_url: URL, *, templates: bool, dry: bool) -> list[str]:
        with closing(Admin(server_url)) as admin:
            catalog = catalogs.look(admin, database_name("prune"))
            doomed = [*catalog.orphans(), *catalog.kept(), *(catalog.templates() if templates else ())]
            dropped = sorted(name for name in doomed if catalogs.drop_unless_in_use(admin, name, dry=dry))
            if left := sorted(set(doomed).difference(dropped)):
                say(f"left alone, since somebody is connected or drops them too: {', '.join(left)}")
            return dropped


class PostgreSQLDatabase(Database):
    """A database cloned from a template (or built directly), leased to this process."""

    def __init__(self, admin: Admin, request: Request) -> None:
        self._admin = admin
        self._request = request
        self._closed = False
        self._renewals = admin.renewals
        self.crowded = not request.disposable
        self.url = request.server_url.set(database=database_name(request.base))
        self._template: str | None = None
        if request.settings.cache is not None:
            self._template = ""
        self.catalog: Catalog = catalogs.look(admin, self.name)
        try:
            self._make()
            if self._template is not None and not request.disposable:
                catalogs.note_use(admin, self._template, self.catalog)
        except BaseException:
            self._abandon(self.name)
            raise
        # A disposable server is thrown away as a whole.
        self._dropped_at_end = not request.disposable

    def _abandon(self, name: str) -> None:
        """Drop what could not be completed; where the server is lost, the next run does."""
        with suppress(psycopg.OperationalError, ServerUnreachable):
            catalogs.drop(self._admin, name)
            catalogs.end_lease(self._admin, name)

    def _make(self) -> None:
        if self._template is not None:
            self._template = self._clone(self.name, self._request.recipe)
            return
        self._create(self.name, None)
        with doing(f"making the database of {self._request.recipe.label}", "template"):
            self._request.recipe.build(build_url(self._request.server_url, self.name))

    def _template_of(self, recipe: Recipe) -> str:
        fingerprint = template_fingerprint(recipe, self._request.settings)
        return template_name(fingerprint, self._admin.version_name, self._admin.user)

    def _clone(self, name: str, recipe: Recipe) -> str:
        """Make a database from the template of ``recipe``, which is built where it is missing; the template's name."""
        template = self._template_of(recipe)
        if not self.catalog.has_template(template):
            template = self._build_template(template, recipe)
        while True:
            try:
                with doing(f"cloning the template database of {recipe.label}", "template"):
                    self._create(name, template)
                return template
            except psycopg.errors.InvalidCatalogName:  # dropped by another process since we looked
                template = self._build_template(template, recipe)

    def _build_template(self, template: str, recipe: Recipe) -> str:
        """Build the template, unless another process has meanwhile; its name, to which what the build read belongs."""
        with catalogs.build_lock(self._admin, template, recipe.label):
            name = database_name(self._request.base)
            self.catalog = catalogs.look(self._admin, name)
            template = self._template_of(recipe)
            if self.catalog.has_template(template):
                return template
            renewals = self._admin.renewals
            try:
                self._build(name, recipe)
                template = self._template_of(recipe)
                now = catalogs.look(self._admin, self.name)
                if now.has_template(template):  # made of other files, which read the same
                    self._abandon(name)
                    return template
                if now.has(template):  # not complete
                    catalogs.drop(self._admin, template)
                catalogs.end_connections(self._admin, name)
                catalogs.write_template_note(self._admin, name, recipe.label, kind_of(recipe))
                self._admin.execute("ALTER DATABASE {name} RENAME TO {template}", name=name, template=template)
                catalogs.end_lease(self._admin, name)
            except BaseException:
                self._abandon(name)
                # the lock was lost with its connection meanwhile, and another process has made the template
                if self._admin.renewals == renewals or not self._has_template_now(template):
                    raise
            self.made_template = True
            self.catalog = catalogs.look(self._admin, self.name)
            for old in catalogs.outdated(self.catalog, template):
                catalogs.drop_unless_in_use(self._admin, old)
        return template

    def _has_template_now(self, template: str) -> bool:
        return catalogs.look(self._admin, self.name).has_template(template)

    def _build(self, name: str, recipe: Recipe) -> None:
        """Make what is to become a template; what another template holds already is cloned from it."""
        if isinstance(recipe, DerivedRecipe):
            self._clone(name, recipe.inner)
            make = recipe.complete
        else:
            with preparing(recipe):
                self._create(name, None)
            make = recipe.build
        settings = self._request.settings
        with doing(f"making the template database of {recipe.label}", "template"), recorded(recipe, settings):
            make(build_url(self._request.server_url, name))

    def _create(self, name: str, template: str | None) -> None:
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        there = self._request.fetch(template or "")
        if template is not None:
            if not there:
                catalogs.drop(self._admin, template)  # then it is made again, as one that somebody else has dropped
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        statement += sql.SQL(self._strategy())
        statement += sql.SQL(" CONNECTION LIMIT {}").format(sql.Literal(catalogs.MARK_LIMIT))
        try:
            try:
                self._admin.run(statement)
            except psycopg.errors.ObjectInUse:
                if template is None:
                    raise
                catalogs.end_connections(self._admin, template)  # somebody has opened it up to look inside
                self._admin.run(statement)
            except psycopg.errors.DuplicateDatabase:  # made in the moment in which the connection was lost
                catalogs.drop(self._admin, name)
                self._admin.run(statement)
        except psycopg.errors.InvalidCatalogName:
            raise
        except psycopg.errors.InsufficientPrivilege as error:
            raise self._cannot_create(error) from error
        except psycopg.DatabaseError as error:
            cause, remedy = limit_named_by(error) or (
                f"somebody is connected to {template or 'template1'}, which is copied.",
                "mend what the server says and run again.",
            )
            raise DatabaseError(
                f"The database {name!r} could not be made on {shown(self._request.server_url)}: {error}",
                cause=cause,
                remedy=remedy,
            ) from error
        self._admin.execute("COMMENT ON DATABASE {name} IS {comment}", name=name, comment=sql.Literal(catalogs.LEASED))

    def _strategy(self) -> LiteralString:
        if self._admin.version < 150000:
            return ""
        # Copying files needs two checkpoints, which cost little only where nothing is written through to a disk.
        return " STRATEGY WAL_LOG" if self.catalog.fsync else " STRATEGY FILE_COPY"

    def _cannot_create(self, error: psycopg.Error) -> CannotCreateDatabase:
        role, url = self._admin.user, self._request.server_url
        return CannotCreateDatabase(
            f"The role {role!r} may not create databases on {shown(url)}: {error}.",
            cause="it was created without CREATEDB.",
            remedy=f'let an administrator run ALTER ROLE "{role}" CREATEDB; or write database = "existing" in the test'
            " class, to use the database that the URL names.",
        )

    def reclone(self) -> None:
        self._admin.refuse_inherited(self.name)
        catalogs.drop(self._admin, self.name)
        self._make()

    def renew_lease(self) -> bool:
        self._admin.renew()
        if self._renewals == self._admin.renewals:
            return False
        self._renewals = self._admin.renewals
        self.catalog = catalogs.look(self._admin, self.name)
        return not self.catalog.has(self.name)

    def spare(self) -> None:
        # nobody drops a database that somebody is connected to; whose connections rest is looked for at the next class
        self._admin.spare()

    def keep(self, test: str, fill: Callable[[URL], None]) -> URL:
        return keep_rows(self._request, self._admin, test, fill)

    def become_kept(self, test: str) -> URL:
        """Give the database another name and leave it behind; to be closed all the same."""
        name = kept_name(self._request.base, test)
        catalogs.end_connections(self._admin, self.name)
        catalogs.write_kept_note(self._admin, self.name, test)
        self._admin.execute("ALTER DATABASE {name} RENAME TO {kept}", name=self.name, kept=name)
        self._dropped_at_end = False
        self._admin.execute("ALTER DATABASE {kept} ALLOW_CONNECTIONS true", kept=name)
        return build_url(self._request.server_url, name)

    def close(self) -> None:
        if self._closed or self._admin.inherited:
            return
        self._closed = True
        try:
            if self._dropped_at_end:
                catalogs.drop(self._admin, self.name)
            catalogs.end_lease(self._admin, self.name)
        except (psycopg.OperationalError, ServerUnreachable) as error:
            # the end of a run: nobody could do anything about an exception
            if self._dropped_at_end:
                reason = without_secrets(str(error).splitlines()[0], self._request.server_url)
                say(f"the database {self.name} was not dropped, the next run there does: {reason}")
        finally:
            self._admin.close()


def keep_rows(request: Request, holder: Admin, test: str, fill: Callable[[URL], None]) -> URL:
    """See :meth:`Database.keep`; ``holder`` holds the lease of what is kept for as long as the run goes on."""
    admin = Admin.shared(request.server_url)
    try:
        database = PostgreSQLDatabase(admin, replace(request, disposable=False))
    except BaseException:
        admin.close()
        raise
    try:
        fill(build_url(database.url, database.name))
        url = database.become_kept(test)
    finally:
        database.close()
    catalogs.look(holder, str(url.database))
    return url


BACKEND = PostgreSQLBackend()
