"""MySQL and MariaDB: databases made once and used again by later runs, leased by named locks.

There is no way to clone a database, so what was made stays, and a run whose fingerprint is known creates no tables.  At
the end its owner compares definitions, counters and rows with what was made: a database that is the same is marked
clean.  One that is not, whose owner was killed before it could look, or that lies on a server that goes on after the
run, is compared by the next who wants it, and made anew where it differs.
"""

from __future__ import annotations

import hashlib
from contextlib import closing, suppress

from sqlalchemy import URL

from ...errors import DatabaseError, ServerUnreachable
from ...reporting import doing, say
from ..inputs import recorded, template_fingerprint
from ..interface import Backend, Database, Request
from ..names import library_version
from .admin import Admin, build_url
from .content import Content, read_content, restore, settle_sequences
from .existing import ExistingDatabase, refuse_without_transactions
from .link import quoted
from .register import Register


class MySQLBackend(Backend):
    """Makes, leases and keeps databases on a MySQL or MariaDB server."""

    def create(self, request: Request) -> Database:
        admin = Admin.shared(request.server_url)
        try:
            return MySQLDatabase(admin, request)
        except BaseException:
            admin.close()
            raise

    def existing(self, request: Request) -> Database:
        return ExistingDatabase(request)

    def answer(self, server_url: URL) -> str:
        with closing(Admin(server_url)) as admin:
            return f"{'MariaDB' if 'mariadb' in admin.version.lower() else 'MySQL'} {admin.version}, as {admin.user}"

    def prune(self, server_url: URL, *, templates: bool, dry: bool) -> list[str]:
        with closing(Admin(server_url)) as admin:
            registers = Register.all_on(admin)
            return sorted(
                name for register in registers for name in register.drop_unused(all_of_them=templates, dry=dry)
            )


class MySQLDatabase(Database):
    """A database of our own, leased to this process; kept at its end if it is as it was made."""

    def __init__(self, admin: Admin, request: Request) -> None:
        self._admin = admin
        self._request = request
        self._kept = request.settings.cache is not None
        self._register = Register(admin, request.base)
        self._closed = False
        self.crowded = not request.disposable
        self._charset = _charset(admin, request.server_url)
        self._key = self._make_key()
        if not (self._kept and self._take_one()):
            self._build_one()
        try:
            if request.transactional:
                refuse_without_transactions(self.name, self._content.engines)
        except BaseException:
            self._register.drop(self.name)
            raise

    def _make_key(self) -> str:
        fingerprint = template_fingerprint(self._request.recipe, self._request.settings)
        parts = (fingerprint, self._admin.version, self._admin.user, library_version())
        return hashlib.sha256("\0".join(parts + self._charset).encode()).hexdigest()

    def _named(self, name: str) -> None:
        self.url = self._request.server_url.set(database=name)

    def _take_one(self) -> bool:
        """Lease a database that an earlier run made, if there is one that nobody uses."""
        for name in self._register.ready(self._key):
            if not self._admin.lock(name):
                continue
            if self._admin.is_used(name):  # by a run that has lost the connection which held its lock
                self._admin.unlock(name)
                continue
            found = self._register.read(name)  # now that nobody else can change it
            if found is not None:
                content, clean = found
                # a process that outlives its run can still write there, but not on a server that has ended with the run
                if (clean and self._request.disposable) or self._restored(name, content):
                    self._content = content
                    self._register.write(name, self._key, content, "in use")
                    self._named(name)
                    return True
                self._register.drop_unless_locked(name)
            self._admin.unlock(name)
        return False

    def _restored(self, name: str, content: Content) -> bool:
        """Whether the database is as it was made, once its counters are set back."""
        try:
            self._admin.end_connections(name)
            return restore(self._admin, name, content)
        except DatabaseError:  # such as one that somebody has dropped
            return False

    def _build_one(self) -> None:
        for _ in self._register.drop_unused():
            pass
        name = self._register.new_name(self._key)
        self._admin.lock(name)
        self._named(name)
        self._build()
        self.made_template = self._kept

    def _build(self) -> None:
        name = self.name
        self._register.write(name, self._key, None, "building")
        try:
            charset, collation = self._charset
            self._admin.run(f"CREATE DATABASE {quoted(name)} CHARACTER SET {charset} COLLATE {collation}")
            recipe = self._request.recipe
            with doing(f"making the tables of {recipe.label}", "template"), recorded(recipe, self._request.settings):
                recipe.build(build_url(self._request.server_url, name))
            self._key = self._make_key()  # what the build read belongs to it
            settle_sequences(self._admin, name)
            self._content = read_content(self._admin, name)
        except BaseException:
            with suppress(DatabaseError):
                self._register.drop(name)
            raise
        self._register.write(name, self._key, self._content, "in use" if self._kept else "once")

    def reclone(self) -> None:
        self._admin.refuse_inherited(self.name)
        if not self._restored(self.name, self._content):
            self._register.drop(self.name)
            self._build()

    def renew_lease(self) -> bool:
        if not self._admin.inherited:
            self._admin.renew()
        return False

    def close(self) -> None:
        if self._closed or self._admin.inherited:
            return
        self._closed = True
        try:
            if not self._kept:
                self._register.drop(self.name)
            elif self._restored(self.name, self._content):
                self._register.write(self.name, self._key, self._content, "clean")
            else:
                self._register.drop(self.name)
            self._admin.unlock(self.name)  # the server notices a closed connection later than the next run looks
        except (DatabaseError, ServerUnreachable) as error:
            # the end of a run: nobody could do anything about an exception
            say(f"the database {self.name} was left as it is, the next run there looks at it: {error.what}")
        finally:
            self._admin.close()


def _charset(admin: Admin, url: URL) -> tuple[str, str]:
    """Character set and collation: those of the database that the URL names, as in production, else UTF-8's."""
    rows = admin.rows(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA"
        " WHERE SCHEMA_NAME = %s",
        (url.database or "",),
    )
    if rows:
        return str(rows[0][0]), str(rows[0][1])
    return "utf8mb4", "utf8mb4_unicode_ci"


BACKEND = MySQLBackend()
