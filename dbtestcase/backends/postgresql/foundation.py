"""What was in an existing database before us and may not be dropped: noted once, put back each time we empty it.

Objects of other owners, extensions, schemas that an administrator has made, and the database's own settings, rights and
comments.  Everything else goes, whatever kind of object it is: the kinds are the server's own list of catalogs.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ...errors import DatabaseError
from .admin import Admin
from .catalog_state import APART, CATALOGS

_FIRST_OID = 16384  # of objects that are no part of the server itself
_PUBLIC = 2200

# An object that goes with another one, or belongs to an extension, is no object of its own.
_OBJECTS = """
select l.class::int8, l.object::int8, i.type, i.identity from ({union}) l
 cross join lateral pg_catalog.pg_identify_object(l.class, l.object, 0) i
 where not exists (select from pg_catalog.pg_depend d where d.classid = l.class and d.objid = l.object
                      and d.deptype in ('i', 'e', 'a', 'P', 'S')) and i.type is not null
   and concat(i.schema, case i.type when 'schema' then i.name end) !~ '^pg_(toast_)?temp'
 order by i.type = 'event trigger' desc, i.type = 'user mapping' desc, i.type = 'schema' desc, l.object desc
"""
_STILL_THERE = "select from pg_catalog.pg_identify_object({class_}, {object_}, 0) i where i.identity is not null"

_SUBSCRIPTIONS = """
select s.subname from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid
 where d.datname = current_database()
"""
_MAPPINGS = "select umid::int8, coalesce(usename, 'public'), umuser = 0, srvname from pg_catalog.pg_user_mappings"
_DEFAULT_RIGHTS = """
select d.oid::int8, d.defaclrole::regrole::text, n.nspname,
       case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions'
                            when 'T' then 'types' when 'n' then 'schemas' when 'L' then 'large objects' end,
       array(select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
               from aclexplode(d.defaclacl) a)
  from pg_catalog.pg_default_acl d left join pg_catalog.pg_namespace n on n.oid = d.defaclnamespace
"""
_SETTINGS = """
select s.setrole::int8, case s.setrole when 0 then null else s.setrole::regrole::text end, s.setconfig
  from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.oid = s.setdatabase
 where d.datname = current_database()
"""
# The database and its schemas: owner, rights and comment.
_PLACES = """
select 'database', d.datname::text, d.datdba::regrole::text, shobj_description(d.oid, 'pg_database'), d.datconnlimit,
       array(select row(case a.grantee when 0 then 'public' else a.grantee::regrole::text end, a.privilege_type,
                        a.is_grantable)::text
               from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a order by 1)
  from pg_catalog.pg_database d where d.datname = current_database()
union all
select 'schema', n.nspname, n.nspowner::regrole::text, obj_description(n.oid, 'pg_namespace'), 0,
       array(select row(case a.grantee when 0 then 'public' else a.grantee::regrole::text end, a.privilege_type,
                        a.is_grantable)::text
               from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a order by 1)
  from pg_catalog.pg_namespace n where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
"""
_SCHEMAS = """
select 'pg_namespace'::regclass::int8, oid::int8 from pg_catalog.pg_namespace
 where nspname !~ '^pg_' and nspname <> 'information_schema'
"""
_COMMENTS = """
select classoid::int8, objoid::int8, objsubid, description from pg_catalog.pg_description
 where classoid <> 'pg_namespace'::regclass
"""
# Settings whose values are lists of names, and are written as they are kept.
_LISTS = {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}


class Foundation:
    """The state of a database at this moment."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        catalogs = [row[1:] for row in self._rows(CATALOGS)]
        self._catalogs = {
            name: f"{digest}{' and' if ' where ' in digest else ' where'} {object_} < {_FIRST_OID}"
            f" and {object_} <> {_PUBLIC}"
            for name, _, object_, digest in catalogs
            if object_ is not None
        }
        oids = {name: class_ for name, class_, object_, _ in catalogs if object_ == "x.oid::oid"}
        oids["pg_largeobject_metadata"] = "2613"
        first = {"pg_largeobject_metadata": 1}  # whoever makes one may choose its number
        self._all = _OBJECTS.format(
            union=" union all ".join(
                f"select '{class_}'::oid as class, x.oid as object from pg_catalog.{name} x"
                f" where x.oid >= {first.get(name, _FIRST_OID)}"
                for name, class_ in oids.items()
            )
        )
        self._objects = {(class_, object_) for class_, object_, _, _ in self._rows(self._all)}
        self._places = {row[:2]: row[2:] for row in self._rows(_PLACES)}
        self._settings = {row[0]: row[1:] for row in self._rows(_SETTINGS)}
        self._comments = self._read_comments()
        self._default_rights = {row[0] for row in self._rows(_DEFAULT_RIGHTS)}
        self._digests = self._digest()

    def restore(self) -> None:
        """Drop what is not part of it, and put back what is."""
        try:
            self._drop_rest()
            self._restore_places()
            self._restore_settings()
            self._restore_comments()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.DependentObjectsStillExist) as error:
            raise self._stays(str(error).strip()) from error
        left = [f"{type_} {identity}" for _, _, type_, identity in self._strangers()]
        digests = self._digest()
        left += [
            f"objects of the server's own in {name}" for name, value in self._digests.items() if digests[name] != value
        ]
        if left:
            raise self._stays(", ".join(left))

    def _stays(self, what: str) -> DatabaseError:
        return DatabaseError(
            f"The existing database cannot be put back as it was: {what}.",
            cause="a test changed what the role of the tests may not drop or alter, or what is the server's own.",
            remedy="let the test undo it, or use a database that dbtestcase makes by itself (database = 'create').",
        )

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._admin.rows(query)

    def _run(self, statement: str, **parts: str | int | sql.Composable) -> None:
        self._admin.execute(statement, **parts)

    def _digest(self) -> dict[str, Any]:
        parts = (f"select '{name}', {digest}" for name, digest in self._catalogs.items())
        return dict(self._rows(APART + " union all ".join(parts)))

    def _read_comments(self) -> dict[tuple[int, int, int], str]:
        return {row[:3]: row[3] for row in self._rows(_COMMENTS)}

    # -- what is not part of it

    def _strangers(self) -> list[tuple[Any, ...]]:
        return [row for row in self._rows(self._all) if row[:2] not in self._objects and row[2] != "default acl"]

    def _drop_rest(self) -> None:
        for (name,) in self._rows(_SUBSCRIPTIONS):
            for statement in ("DISABLE", "SET (slot_name = NONE)"):
                self._run(f"ALTER SUBSCRIPTION {{name}} {statement}", name=name)
            self._run("DROP SUBSCRIPTION {name}", name=name)
        mappings = {row[0]: row[1:] for row in self._rows(_MAPPINGS)}
        for class_, object_, type_, identity in self._strangers():
            if not self._rows(_STILL_THERE.format(class_=class_, object_=object_)):
                continue  # it went with another
            if type_ == "large object":
                self._rows(f"select lo_unlink({object_})")
            elif type_ == "user mapping":
                user, public, server = mappings[object_]
                role = sql.SQL("PUBLIC") if public else sql.Identifier(user)
                self._run("DROP USER MAPPING FOR {role} SERVER {server}", role=role, server=server)
            else:
                self._admin.run(f"DROP {type_} IF EXISTS {identity} CASCADE")
        for oid, role, schema, objects, grantees in self._rows(_DEFAULT_RIGHTS):
            if oid not in self._default_rights:
                self._drop_default_rights(role, schema, objects, grantees)

    def _drop_default_rights(self, role: str, schema: str | None, objects: str, grantees: list[str]) -> None:
        """An entry goes where it says the same as without it."""
        place = sql.SQL(" IN SCHEMA {}").format(sql.Identifier(schema)) if schema else sql.SQL("")
        changes = [f"REVOKE ALL ON {objects} FROM {grantee}" for grantee in {*grantees, "public", role}]
        if schema is None:
            changes.append(f"GRANT ALL ON {objects} TO {role}")
            if objects in ("functions", "types"):
                changes.append(f"GRANT ALL ON {objects} TO public")
        for change in changes:
            self._run(f"ALTER DEFAULT PRIVILEGES FOR ROLE {role}{{place}} {change}", place=place)

    # -- what is

    def _restore_places(self) -> None:
        now = {row[:2]: row[2:] for row in self._rows(_PLACES)}
        for (kind, name), (owner, comment, limit, rights) in self._places.items():
            if (kind, name) not in now:
                self._run("CREATE SCHEMA {name}", name=name)
                self._objects |= {tuple(row) for row in self._rows(_SCHEMAS)}  # the strangers are gone
                now = {row[:2]: row[2:] for row in self._rows(_PLACES)}
            owner_now, comment_now, limit_now, rights_now = now[kind, name]
            if owner_now != owner:
                self._run(f"ALTER {kind} {{name}} OWNER TO {owner}", name=name)
                rights_now = {row[:2]: row[2:] for row in self._rows(_PLACES)}[kind, name][3]
            if comment_now != comment:
                self._run(f"COMMENT ON {kind} {{name}} IS {{comment}}", name=name, comment=sql.Literal(comment))
            if limit_now != limit:
                self._run("ALTER DATABASE {name} CONNECTION LIMIT {limit}", name=name, limit=sql.Literal(limit))
            if rights_now != rights:
                self._restore_rights(kind, name, rights_now, rights)

    def _restore_rights(self, kind: str, name: str, now: list[str], then: list[str]) -> None:
        for grantee in {_grant(text)[0] for text in now}:
            self._run(f"REVOKE ALL ON {kind} {{name}} FROM {grantee}", name=name)
        for grantee, privilege, grantable in map(_grant, then):
            option = " WITH GRANT OPTION" if grantable else ""
            self._run(f"GRANT {privilege} ON {kind} {{name}} TO {grantee}{option}", name=name)

    def _restore_settings(self) -> None:
        now = {row[0]: row[1:] for row in self._rows(_SETTINGS)}
        for key, (role, _) in {**now, **self._settings}.items():
            wanted = self._settings.get(key, (role, []))[1]
            if now.get(key, (role, []))[1] == wanted:
                continue
            whom = f"ROLE {role} IN DATABASE" if role else "DATABASE"
            self._run(f"ALTER {whom} {{name}} RESET ALL", name=self._database)
            for setting in wanted:
                what, _, value = setting.partition("=")
                written = sql.SQL(value) if what in _LISTS else sql.Literal(value)
                self._run(
                    f"ALTER {whom} {{name}} SET {{what}} TO {{value}}", name=self._database, what=what, value=written
                )

    @property
    def _database(self) -> str:
        return next(str(name) for kind, name in self._places if kind == "database")

    def _restore_comments(self) -> None:
        now = self._read_comments()
        changed = {key for key in now.keys() | self._comments.keys() if now.get(key) != self._comments.get(key)}
        for class_, object_, part in sorted(changed):
            ((type_, identity),) = self._rows(
                f"select i.type, i.identity from pg_catalog.pg_identify_object({class_}, {object_}, {part}) i"
            )
            if identity is not None:
                type_ = "column" if type_.endswith("column") else type_
                comment = sql.Literal(self._comments.get((class_, object_, part)))
                self._run(
                    f"COMMENT ON {type_} {identity.replace('{', '{{').replace('}', '}}')} IS {{comment}}",
                    comment=comment,
                )


def _grant(text: str) -> tuple[str, str, bool]:
    """Grantee, privilege and whether it may be handed on, from a row's text."""
    grantee, privilege, grantable = text[1:-1].rsplit(",", 2)
    return grantee.strip('"').replace('""', '"') if grantee.startswith('"') else grantee, privilege, grantable == "t"
