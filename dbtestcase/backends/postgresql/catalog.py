"""What a PostgreSQL server knows of our databases: marks, leases, templates and when they were used; and dropping.

A database of ours has a name of our shape *and* a mark: a connection limit that nobody else would choose, from its
first moment (``CREATE DATABASE`` and ``COMMENT`` are two statements, and a process may die between them), and a
comment that says the same for people.  Its owner holds an advisory lock from before the database is there until after
it is gone.  The connection that holds it may be lost (a reaper, a failover, an administrator): it is renewed at its
next use, and meanwhile nobody drops a database that somebody is connected to.

A template begins as such a database.  When it is complete it is closed to connections, its comment is changed, and it
is renamed, last: nothing but a complete template ever has a template's name and that comment.

A kept database (the rows of a failing test) begins as such a database
too, and is renamed last.  The run that made it holds its lease until it ends; then it stays for a while.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ...errors import DatabaseError, ServerUnreachable
from ...reporting import doing
from ..names import is_database_name, is_kept_name, is_template_name, lock_key
from .admin import Admin, connection_arguments

MARK_LIMIT = 1_146_242_131  # as a limit of connections: none at all
LEASED = "dbtestcase: in use while its owner holds an advisory lock; a leftover otherwise"
TEMPLATE = "dbtestcase: template "
KEPT = "dbtestcase: rows of a failing test "
LEASE_LOCKS, BUILD_LOCKS = 1_146_242_132, 1_146_242_133  # the first of an advisory lock's two numbers
KEPT_OF_RECIPE, KEPT_IN_ALL = 3, 24
USE_NOTED_EVERY = 3600  # seconds
KEPT_SECONDS, KEPT_ROWS = 24 * 3600, 10  # how long the rows of failing tests stay, and how many of them, between runs

# The lease is taken in the same round trip.  Databases are read before locks (the statement's snapshot is older than
# what pg_locks shows), so that a database that is seen without its lock has no owner.
_LOOK = """
SELECT CASE WHEN %(take)s THEN pg_advisory_lock(%(lease_class)s, %(lease)s)::text END,
       current_setting('fsync'),
       ARRAY(SELECT objid::bigint FROM pg_locks
             WHERE locktype = 'advisory' AND objsubid = 2 AND classid = %(lease_class)s::int::oid),
       (SELECT coalesce(json_agg(json_build_array(datname, datconnlimit, comment)), '[]')
        FROM (SELECT datname, datconnlimit, datdba, shobj_description(oid, 'pg_database') AS comment
              FROM pg_database) AS d
        WHERE pg_has_role(datdba, 'USAGE')
          AND (comment LIKE 'dbtestcase: %%' OR datconnlimit = %(mark)s))
"""


@dataclass
class Catalog:
    """Our databases on the server; ``fsync``: whether that writes through to the disk."""

    fsync: bool
    _leases: set[int]
    _comments: dict[str, str | None]

    def has(self, name: str) -> bool:
        """Whether a database of ours has this name."""
        return name in self._comments

    def has_template(self, name: str) -> bool:
        """Whether the template is there and complete."""
        return is_template_name(name) and (self._comments.get(name) or "").startswith(TEMPLATE)

    def orphans(self) -> list[str]:
        """Marked databases whose owner is gone."""
        return [name for name in self._comments if is_database_name(name) and not self._is_leased(name)]

    def kept(self) -> dict[str, dict[str, Any]]:
        """What is noted of the rows of failing tests that runs before have kept."""
        return {
            name: self._note(name, KEPT)
            for name, comment in self._comments.items()
            if is_kept_name(name) and (comment or "").startswith(KEPT) and not self._is_leased(name)
        }

    def templates(self) -> dict[str, dict[str, Any]]:
        """What is noted of each complete template."""
        return {name: self._note(name) for name in self._comments if self.has_template(name)}

    def _is_leased(self, name: str) -> bool:
        return lock_key(name) & 0xFFFFFFFF in self._leases

    def _note(self, name: str, kind: str = TEMPLATE) -> dict[str, Any]:
        try:
            note = json.loads((self._comments[name] or "").removeprefix(kind))
        except ValueError:
            return {}
        return note if isinstance(note, dict) else {}


def look(admin: Admin, lease: str) -> Catalog:
    """Read the catalog, and take the lease of the database ``lease`` for this connection."""
    key = lock_key(lease)
    take = not admin.holds(LEASE_LOCKS, key)
    parameters = {"take": take, "lease_class": LEASE_LOCKS, "lease": key, "mark": MARK_LIMIT}
    _, fsync, leases, databases = admin.rows(_LOOK, parameters)[0]
    admin.keep_lock(LEASE_LOCKS, key)
    return Catalog(fsync == "on", set(leases), {name: comment for name, _limit, comment in databases})


def end_lease(admin: Admin, name: str) -> None:
    """Give back the lease of a database that is gone, or is to have no owner any more."""
    admin.unlock(LEASE_LOCKS, lock_key(name))


@contextmanager
def build_lock(admin: Admin, template: str, label: str) -> Iterator[None]:
    """Hold the lock under which a template is built; of several processes one builds, the others wait for it."""
    key = {"kind": BUILD_LOCKS, "key": lock_key(template)}
    with doing(f"waiting for another process that makes the template database of {label}"):
        admin.rows("SELECT pg_advisory_lock(%(kind)s, %(key)s)::text", key)
    admin.pinned += 1
    try:
        yield
    finally:
        admin.pinned -= 1
        with suppress(psycopg.OperationalError, ServerUnreachable):  # the lock is gone with the connection
            if not admin.closed:
                admin.rows("SELECT pg_advisory_unlock(%(kind)s, %(key)s)", key)


def write_template_note(admin: Admin, template: str, label: str, kind: str) -> None:
    """Write the comment that makes a template complete.

    :param kind: what it has in common with the templates of other versions of its recipe, beside the label.
    """
    note = TEMPLATE + json.dumps({"label": label, "kind": kind, "used": int(time.time())})
    admin.execute("COMMENT ON DATABASE {name} IS {note}", name=template, note=sql.Literal(note))


def write_kept_note(admin: Admin, name: str, test: str) -> None:
    """Write the comment that says of which test the rows are."""
    note = KEPT + json.dumps({"test": test, "kept": int(time.time())})
    admin.execute("COMMENT ON DATABASE {name} IS {note}", name=name, note=sql.Literal(note))


def outdated_kept(catalog: Catalog) -> list[str]:
    """The kept rows to drop: those of a day ago, and all but the newest."""
    notes = {name: float(note.get("kept", 0)) for name, note in catalog.kept().items()}
    newest = sorted(notes, key=lambda name: notes[name], reverse=True)
    now = time.time()
    return [name for number, name in enumerate(newest) if number >= KEPT_ROWS or now - notes[name] > KEPT_SECONDS]


def note_use(admin: Admin, template: str, catalog: Catalog) -> None:
    """Note that a template was used; not more often than once in an hour."""
    note = catalog.templates().get(template, {})
    if time.time() - float(note.get("used", 0)) > USE_NOTED_EVERY:
        try:
            write_template_note(admin, template, str(note.get("label", "")), str(note.get("kind", "")))
        except (psycopg.errors.InternalError, psycopg.errors.InvalidCatalogName):
            return  # another process noted it at the same moment, or has dropped it


def outdated(catalog: Catalog, current: str) -> list[str]:
    """The templates to drop once ``current`` was added: all but those used last, of its recipe and of all recipes."""
    notes = catalog.templates()
    newest = sorted(notes, key=lambda name: (name == current, notes[name].get("used", 0)), reverse=True)
    same = [name for name in newest if _are_of_one_recipe(notes[name], notes.get(current, {}))]
    return list(dict.fromkeys(same[KEPT_OF_RECIPE:] + newest[KEPT_IN_ALL:]))


def _are_of_one_recipe(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two notes are of one model, at times with more tables and at times with fewer."""
    names, others = _names(one), _names(other)
    return one.get("kind") == other.get("kind") and all(a == b for a, b in zip(names, others, strict=False))


def _names(note: dict[str, Any]) -> list[str]:
    return re.sub(r", … \(\d+ tables\)| \(committing\)", "", str(note.get("label"))).split(", ")


_USERS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = %(name)s),
       ARRAY(SELECT gid FROM pg_prepared_xacts WHERE database = %(name)s)
"""
_END_CONNECTIONS = """
DO $$ BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {name};
    FOR attempt IN 1..25 LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = {name});
        PERFORM pg_sleep(0.002);
    END LOOP;
END $$
"""


def end_connections(admin: Admin, name: str) -> None:
    """Refuse new connections to a database, end those that are there, and wait (50 ms at most) until they are gone."""
    # DROP DATABASE and RENAME, when they meet a connection that is just ending, look again only after 100 ms.
    admin.execute("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name)
    admin.execute(_END_CONNECTIONS, name=sql.Literal(name))


def drop(admin: Admin, name: str) -> None:
    """Drop a database whoever uses it: connections are refused and ended, prepared transactions rolled back."""
    in_use, prepared = admin.rows(_USERS, {"name": name})[0]
    try:
        if prepared:
            _roll_back_prepared(admin, name, prepared)
        if in_use or prepared:
            end_connections(admin, name)
        try:
            admin.execute("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=name)
        except (psycopg.errors.ObjectInUse, psycopg.errors.WrongObjectType) as error:
            if isinstance(error, psycopg.errors.WrongObjectType):  # somebody has made a template of it
                admin.execute("ALTER DATABASE {name} IS_TEMPLATE false", name=name)
            else:
                _end_replication(admin, name)
            admin.execute("DROP DATABASE IF EXISTS {name} WITH (FORCE)", name=name)
    except (psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege) as error:
        raise DatabaseError(
            f"The database {name!r} cannot be dropped: {error}",
            cause="a replication slot, a subscription or another role's connection uses it.",
            remedy=f"end what uses it; the next run, or python -m dbtestcase prune, drops {name!r} then.",
        ) from error


def _end_replication(admin: Admin, name: str) -> None:
    """Drop a database's subscriptions (what they replicate stays at its source) and its logical slots."""
    admin.execute("ALTER DATABASE {name} ALLOW_CONNECTIONS true", name=name)
    with psycopg.connect(**connection_arguments(admin.url, name), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = %s", (name,)
        ).fetchall()
        for (subscription,) in rows:
            for change in ("ALTER SUBSCRIPTION {} DISABLE", "ALTER SUBSCRIPTION {} SET (slot_name = NONE)"):
                connection.execute(sql.SQL(change).format(sql.Identifier(subscription)))
            connection.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(subscription)))
    end_connections(admin, name)
    admin.rows(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
        " WHERE database = %(name)s AND active_pid IS NOT NULL",
        {"name": name},
    )
    admin.rows(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %(name)s", {"name": name}
    )


def _roll_back_prepared(admin: Admin, name: str, prepared: list[str]) -> None:
    with psycopg.connect(**connection_arguments(admin.url, name), autocommit=True) as connection:
        for gid in prepared:
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


_CLAIM = """
SELECT pg_try_advisory_lock(%(lease_class)s, %(lease)s),
       EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND pid <> pg_backend_pid()
               AND classid = %(lease_class)s::int::oid AND objid::bigint = %(unsigned)s),
       EXISTS (SELECT FROM pg_stat_activity
               WHERE datname = %(name)s AND backend_type IS DISTINCT FROM 'autovacuum worker'),
       ARRAY(SELECT gid FROM pg_prepared_xacts WHERE database = %(name)s),
       EXISTS (SELECT FROM pg_database WHERE datname = %(name)s AND datistemplate)
"""


def drop_unless_in_use(admin: Admin, name: str, *, dry: bool = False) -> bool:
    """Drop what no living process owns or is connected to; ``False`` where one does, or takes it at this moment.

    Its lease is held meanwhile: an owner that has lost its own, and wants it back, waits, and finds the database gone.
    """
    key = lock_key(name)
    if admin.holds(LEASE_LOCKS, key):  # the server would give it twice
        return False
    parameters = {"lease_class": LEASE_LOCKS, "lease": key, "unsigned": key & 0xFFFFFFFF, "name": name}
    claimed, owned, connected, prepared, is_template = admin.rows(_CLAIM, parameters)[0]
    try:
        if not claimed or owned or connected:
            return False
        if dry:
            return True
        if prepared:
            _roll_back_prepared(admin, name, prepared)
        if is_template:
            admin.execute("ALTER DATABASE {name} IS_TEMPLATE false", name=name)
        admin.execute("DROP DATABASE IF EXISTS {name}", name=name)  # not by force: somebody may have just come
        return True
    except psycopg.Error:  # in use, dropped or taken by others, or not ours to drop
        return False
    finally:
        if claimed and not admin.closed:
            admin.rows("SELECT pg_advisory_unlock(%(lease_class)s, %(lease)s)", parameters)
