"""What a test may change on a PostgreSQL server outside of its database: roles, settings, tablespaces and the like.

One query reads all of it, each thing with the statements that make it what it is and those that take it away.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from .connections import Connection

# Settings that are lists are kept, and have to be given, as they stand; any other is a value.
_VALUE = """case when {name} in ('search_path', 'temp_tablespaces', 'unix_socket_directories', 'createrole_self_grant',
  'local_preload_libraries', 'session_preload_libraries', 'shared_preload_libraries') then {value}
  else quote_literal({value}) end"""

_ROLE_SETTING = _VALUE.format(name="c.name", value="c.value")
_SYSTEM_SETTING = _VALUE.format(name="f.name", value="f.setting")

# What it is called, its name, what it is, the statements that make it so, those that remove it.
_STATE = f"""
with others as materialized (
  select * from pg_catalog.pg_database d
   where d.datname <> current_database() and d.datconnlimit not in (-2, 1146242131)
     and coalesce(shobj_description(d.oid, 'pg_database'), '') !~ '^dbtestcase: ')
select 'the role ' || r.rolname, r.rolname, concat_ws(' ', a.words, a.password, a.ends, r.rolconnlimit),
       array[format('create role %I', r.rolname),
             format('alter role %I with %s connection limit %s password %s', r.rolname, a.words, r.rolconnlimit,
                    a.password),
             format('update pg_catalog.pg_authid set rolvaliduntil = %L where rolname = %L', rolvaliduntil, r.rolname)],
       array[format('drop owned by %I', r.rolname), format('drop role %I', r.rolname)]
  from pg_catalog.pg_authid r cross join lateral (
    select concat_ws(' ', case when rolsuper then 'superuser' else 'nosuperuser' end,
             case when rolinherit then 'inherit' else 'noinherit' end,
             case when rolcreaterole then 'createrole' else 'nocreaterole' end,
             case when rolcreatedb then 'createdb' else 'nocreatedb' end,
             case when rolcanlogin then 'login' else 'nologin' end,
             case when rolreplication then 'replication' else 'noreplication' end,
             case when rolbypassrls then 'bypassrls' else 'nobypassrls' end)
             as words,
           coalesce(quote_literal(rolpassword), 'null') as password,
           rolvaliduntil::text as ends) a
 where r.rolname !~ '^pg_'
union all
select format('the setting %s of %s', c.name, c.who), c.name, c.value,
       array[format('alter %s set %s = %s', c.who, c.name, {_ROLE_SETTING})],
       array[format('alter %s reset %s', c.who, c.name)]
  from (select case when s.setrole = 0 and s.setdatabase <> 0 then format('database %I', d.datname)
                    else format('role %s%s', case s.setrole when 0 then 'all' else quote_ident(r.rolname) end,
                                ' in database ' || quote_ident(d.datname)) end as who,
               split_part(e, '=', 1) as name, substr(e, strpos(e, '=') + 1) as value
          from pg_catalog.pg_db_role_setting s cross join unnest(s.setconfig) e
          left join pg_catalog.pg_roles r on r.oid = s.setrole left join others d on d.oid = s.setdatabase
         where s.setdatabase = 0 or d.oid is not null) c
union all
select format('the membership of %s in %s', m.member::regrole, m.roleid::regrole), pg_get_userbyid(m.member),
       m.admin_option::text,
       array[format('grant %s to %s%s', m.roleid::regrole, m.member::regrole,
                    case when m.admin_option then ' with admin option' else '' end)],
       array[format('revoke %s from %s', m.roleid::regrole, m.member::regrole)]
  from pg_catalog.pg_auth_members m
union all
select 'the comment on the ' || k.what, k.name, k.description,
       array[format('comment on %s is %L', k.what, k.description)],
       array[format('comment on %s is null', k.what)]
  from (select d.description, coalesce(r.rolname, t.spcname, o.datname) as name,
               coalesce('role ' || quote_ident(r.rolname), 'tablespace ' || quote_ident(t.spcname),
                        'database ' || quote_ident(o.datname)) as what
          from pg_catalog.pg_shdescription d
          left join pg_catalog.pg_roles r on d.classoid = 1260 and r.oid = d.objoid
          left join pg_catalog.pg_tablespace t on d.classoid = 1213 and t.oid = d.objoid
          left join others o on d.classoid = 1262 and o.oid = d.objoid) k
 where k.what is not null
union all
select 'the tablespace ' || t.spcname, t.spcname, row(t.spcowner, t.spcacl, t.spcoptions)::text,
       array[format('alter tablespace %I owner to %s', t.spcname, t.spcowner::regrole),
             format('update pg_catalog.pg_tablespace set (spcowner, spcacl, spcoptions) = (%L, %L, %L) where oid = %s',
                    t.spcowner, t.spcacl, t.spcoptions, t.oid)],
       array[format('drop tablespace %I', t.spcname)]
  from pg_catalog.pg_tablespace t
union all
select 'the replication slot ' || s.slot_name, s.slot_name, s.slot_type, '{{}}',
       array[format('select pg_drop_replication_slot(%L)', s.slot_name)]
  from pg_catalog.pg_replication_slots s where not s.temporary
union all
select 'the database ' || d.datname, d.datname,
       row(d.datdba, d.datacl, d.datallowconn, d.datistemplate, d.datconnlimit)::text,
       array[format('alter database %I owner to %s', d.datname, d.datdba::regrole),
             format('update pg_catalog.pg_database set (datdba, datacl, datallowconn, datistemplate, datconnlimit)'
                    ' = (%L, %L, %L, %L, %s) where oid = %s',
                    d.datdba, d.datacl, d.datallowconn, d.datistemplate, d.datconnlimit, d.oid)],
       array[format('drop database %I with (force)', d.datname)]
  from others d
"""

_RIGHTS_ON_PARAMETERS = """
union all
select 'the rights on the parameter ' || p.parname, p.parname, p.paracl::text,
       array[format('update pg_catalog.pg_parameter_acl set paracl = %L where parname = %L', p.paracl, p.parname)],
       array[format('revoke all on parameter %s from %s', p.parname,
              (select string_agg(distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end, ', ')
                 from aclexplode(p.paracl) a where a.grantee <> 10))]
  from pg_catalog.pg_parameter_acl p
"""

_SYSTEM_SETTINGS = f"""
union all
select format('the setting %s of the server', f.name), f.name, max(f.setting),
       array[format('alter system set %s = %s', f.name, max({_SYSTEM_SETTING}))],
       array[format('alter system reset %s', f.name)]
  from pg_catalog.pg_file_settings f where f.sourcefile ~ 'postgresql.auto.conf$' group by f.name
"""

_MAY_READ_ALL = b"""select has_table_privilege('pg_catalog.pg_authid', 'select')
  and has_table_privilege('pg_catalog.pg_file_settings', 'select')
  and has_function_privilege('pg_show_all_file_settings()', 'execute')"""


@dataclass(frozen=True)
class _Thing:
    name: str
    value: str
    make: tuple[str, ...]
    remove: tuple[str, ...]


class ServerState:
    """The state of the moment when this is made; without passwords and settings for a role that may not see them.

    :param connection: in autocommit mode.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        sees_all = connection.execute(_MAY_READ_ALL).fetchone() == (True,)
        query = (
            _STATE + _SYSTEM_SETTINGS if sees_all else _STATE.replace("pg_catalog.pg_authid r", "pg_catalog.pg_roles r")
        )
        query += _RIGHTS_ON_PARAMETERS if connection.info.server_version >= 150000 else ""
        self._query = query.encode()
        self.accept()

    def accept(self) -> None:
        """What there is at this moment is what is to be."""
        self._wanted = self._read()

    def _read(self) -> dict[str, _Thing]:
        rows = self.connection.execute(self._query).fetchall()
        return {title: _Thing(name, value, tuple(make), tuple(remove)) for title, name, value, make, remove in rows}

    def changes(self, named_in: str | None) -> tuple[str, ...]:
        """What has changed and is still as it was changed, in words; from now on it counts as wanted.

        :param named_in: the statements that were seen, where others use the server as well: nothing else is told.
            ``None``: nobody else does, so what was changed is made as it was.
        """
        found = self._read()
        if named_in is None and found != self._wanted:
            self._put_back(found)
            found = self._read()
        wanted, self._wanted = self._wanted, found
        return tuple(
            f"{title} is {'gone' if title not in found else 'new' if title not in wanted else 'another one'}"
            for title, thing in sorted({**wanted, **found}.items(), key=lambda item: item[0])
            if found.get(title) != wanted.get(title) and (named_in is None or thing.name in named_in)
        )

    def _put_back(self, found: dict[str, _Thing]) -> None:
        new = [thing for title, thing in reversed(found.items()) if title not in self._wanted]
        removed = [each for thing in new for each in thing.remove]
        made = [each for title, thing in self._wanted.items() if found.get(title) != thing for each in thing.make]
        # Twice: who is new may have been given what is old.
        for statement in [*removed, *made, *removed, "select pg_reload_conf()"]:
            try:
                self.connection.execute(statement.encode(), prepare=False)
            except psycopg.Error:
                if self.connection.closed:
                    raise
                continue  # it is there already, or cannot be removed, which the next look tells
