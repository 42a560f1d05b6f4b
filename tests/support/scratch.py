"""A PostgreSQL database of a test's own, cloned as often as asked; and all that is in it, as the judge sees it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from tests.support.servers import postgresql_url

__all__ = ["Scratch", "connect", "dump"]


def connect(url: URL, *, autocommit: bool = False, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """A psycopg connection to the database at ``url``."""
    arguments = dict(url.set(drivername="postgresql+psycopg").get_dialect()().create_connect_args(url)[1])
    return psycopg.connect(**arguments, **options, autocommit=autocommit)


class Scratch:
    """A database made by ``script``.  ``template`` and ``url`` name the template and its clone."""

    def __init__(self, name: str, script: str, *, owner: str = "postgres") -> None:
        self.server = postgresql_url()
        self._owner = owner
        self.template = self.server.set(database=f"{name}_template", username=owner)
        self.url = self.server.set(database=name, username=owner)
        self.reclones = 0
        self._run("drop database if exists {} with (force)", self.template.database)
        self._run(f"create database {{}} owner {owner}", self.template.database)
        with connect(self.template, autocommit=True) as connection:
            connection.execute(script.encode(), prepare=False)

    def clone(self) -> Scratch:
        self._run("drop database if exists {} with (force)", self.url.database)
        self._run(f"create database {{}} template {{}} owner {self._owner}", self.url.database, self.template.database)
        return self

    def reclone(self) -> None:
        self.reclones += 1
        self.clone()

    def _run(self, statement: str, *names: str | None) -> None:
        with connect(self.server, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, map(str, names))))  # type: ignore[arg-type]

    def __enter__(self) -> Scratch:
        return self.clone()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for url in (self.url, self.template):
            self._run("drop database if exists {} with (force)", url.database)


_CATALOG = """
select 'relation', c.oid::regclass::text, (c.relkind, c.relowner, c.relacl, c.reloptions, c.relrowsecurity, c.relnatts,
       c.relpersistence, c.relispopulated)::text
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', '_dbtestcase')
union all
select 'column', attrelid::regclass::text || '.' || attname, (atttypid, attnotnull, atthasdef, attidentity)::text
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
 where attnum > 0 and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', '_dbtestcase')
union all
select 'trigger', tgrelid::regclass::text || '.' || tgname, tgenabled::text from pg_trigger
union all
select 'constraint', conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid) from pg_constraint
 where connamespace <> 'pg_catalog'::regnamespace
union all
select 'function', oid::regprocedure::text, prosrc from pg_proc where oid >= 16384
union all
select 'type', oid::regtype::text, typtype::text from pg_type where oid >= 16384 and typnamespace !=
  all (select oid from pg_namespace where nspname like 'pg_t%' or nspname = '_dbtestcase')
union all
select 'schema', nspname, nspacl::text from pg_namespace where nspname !~ '^pg_t'
union all
select 'label', enumtypid::regtype || '.' || enumlabel, enumsortorder::text from pg_enum
union all
select 'comment', objoid::text, description from pg_description
 where objoid >= 16384 and classoid = 'pg_class'::regclass
order by 1, 2, 3
"""


def dump(url: URL) -> dict[str, Any]:
    """Rows, sequences, materialized views, large objects and the catalog, by a connection of the judge's own."""
    found: dict[str, Any] = {}
    with connect(url, autocommit=True) as connection:
        connection.execute("set search_path = pg_catalog; set row_security = off")
        for name, kind in connection.execute(
            """select c.oid::regclass::text, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where c.relkind in ('r', 'm', 'S') and n.nspname !~ '^pg_'
                  and n.nspname not in ('information_schema', '_dbtestcase')"""
        ).fetchall():
            query = f"select last_value, is_called from {name}"
            if kind == "r":
                query = f"select t::text from only {name} t order by 1"
            elif kind == "m":
                query = f"select t::text from {name} t order by 1"
            try:
                found[name] = connection.execute(query.encode()).fetchall()
            except psycopg.errors.ObjectNotInPrerequisiteState:
                found[name] = "not populated"
        found["large objects"] = connection.execute(
            "select oid, lomowner, lo_get(oid) from pg_largeobject_metadata order by 1"
        ).fetchall()
        found["catalog"] = connection.execute(_CATALOG).fetchall()
    return found
