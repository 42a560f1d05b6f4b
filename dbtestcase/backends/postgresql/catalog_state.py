"""Whether anything but rows has changed in a PostgreSQL database: its system catalogs, all of them.

The list of catalogs and of their columns is the server's own, so that nothing has to be remembered here but what is
*no* change: columns that change by themselves, statistics, and what belongs to temporary objects, to TOAST or to our
own bookkeeping.  Three looks, each taken only where the one before it finds something:

1. A catalog without a page that was written since is as it was (``cleaning_sql``; needs the visibility map).
2. Its *count*: how many rows it has, and the sum of the transactions that wrote them.  A new row makes the first
   larger, a row written again the second, whatever else was dropped: equal counts are equal catalogs.
3. Its *digest*: what is in the rows.  It is the same where a ``TRUNCATE`` or a temporary table has come and gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import psycopg

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

# Statistics, and large objects, which are put back as rows are.
_NOT_LOOKED_AT = "('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject', 'pg_largeobject_metadata')"

# What VACUUM, ANALYZE, TRUNCATE, REFRESH, CLUSTER and REINDEX change, and hints that a table has had an index.
_BY_THEMSELVES = """('relfilenode', 'relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid',
  'relminmxid', 'reltoastrelid', 'relhasindex', 'relhasrules', 'relhastriggers', 'relhassubclass', 'relrewrite',
  'relispopulated', 'attcacheoff', 'atthasmissing', 'attmissingval', 'indcheckxmin', 'srsubstate', 'srsublsn')"""

# Each catalog with the object that a row belongs to (two expressions over "x") and the columns that count.
CATALOGS = f"""
select c.oid::int8, c.relname::text, k.class, k.object,
       format('coalesce(sum(hashtextextended(row(%s)::text, 0)), 0) from pg_catalog.%I x%s',
              (select string_agg(format('x.%I', a.attname), ', ' order by a.attnum) from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and (a.attnum > 0) and not a.attisdropped
                  and a.attname not in {_BY_THEMSELVES})
              || case when c.relname = 'pg_class'
                      then ', (select t.reloptions from pg_catalog.pg_class t where t.oid = x.reltoastrelid)'
                      else '' end,
              c.relname,
              coalesce(format(' where not exists (select from apart where apart.class = %s and apart.object = %s)',
                              k.class, k.object), ''))
  from pg_catalog.pg_class c
  left join lateral (
    select case when a.attname in ('objid', 'objoid') then format('x.%I', replace(replace(a.attname::text,
                          'objoid', 'classoid'), 'objid', 'classid'))
                when a.attname = 'oid' then c.oid::text
                when a.attname = 'aggfnoid' then '1255' when a.attname = 'rngtypid' then '1247'
                when a.attname = 'mapcfg' then '3602' else '1259' end as class,
           format('x.%I::oid', a.attname) as object
      from pg_catalog.pg_attribute a
     where a.attrelid = c.oid and a.attname in ('oid', 'objid', 'objoid', 'attrelid', 'indexrelid', 'inhrelid',
           'seqrelid', 'partrelid', 'ftrelid', 'srrelid', 'aggfnoid', 'rngtypid', 'mapcfg')
     order by a.attname = 'oid' desc, a.attname = 'indexrelid' desc limit 1) k on true
 where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind = 'r' and not c.relisshared
   and c.relname not in {_NOT_LOOKED_AT}
   and (has_table_privilege(c.oid, 'select') or c.relname <> 'pg_user_mapping')
 order by c.oid
"""

# What belongs to temporary objects, to TOAST, or to the bookkeeping.
APART = """
with recursive spaces as materialized (
  select oid from pg_catalog.pg_namespace where nspname ~ '^pg_(temp|toast)' or nspname = '_dbtestcase'),
apart(class, object) as (
  select '2615'::oid, oid from spaces
  union all select '1259'::oid, oid from pg_catalog.pg_class where relnamespace in (select oid from spaces)
  union all select '1247'::oid, oid from pg_catalog.pg_type where typnamespace in (select oid from spaces)
  union all select '1255'::oid, oid from pg_catalog.pg_proc where pronamespace in (select oid from spaces)
  union select d.classid, d.objid from apart a
          join pg_catalog.pg_depend d on d.refclassid = a.class and d.refobjid = a.object
         where d.deptype in ('a', 'i', 'P', 'S'))
"""

# The count of one catalog, compared with a transaction of the past, so that it stays what it is while time goes on.
# Rows that are as old as the cluster have the greatest age of all.
COUNT = """
select count(*), count(*) filter (where age(x.xmin) = 2147483647),
       (count(*) - count(*) filter (where age(x.xmin) = 2147483647)) * age({base}::xid)::numeric
       - coalesce(sum(age(x.xmin)) filter (where age(x.xmin) < 2147483647), 0)
  from pg_catalog.{name} x
"""

# What the server keeps outside of the database's own catalogs and yet belongs to it: its row, settings, comment,
# security labels and subscriptions.  {subscription}: its columns that may be read.
FACTS = """
select concat_ws(e'\\n',
  (select to_jsonb(d) - '{{datfrozenxid,datminmxid,datlastsysoid}}'::text[] from pg_catalog.pg_database d
    where d.oid = {database}),
  (select string_agg(row(s.setrole, s.setconfig)::text, ' ' order by s.setrole) from pg_catalog.pg_db_role_setting s
    where s.setdatabase = {database}),
  (select 'comment ' || s.description from pg_catalog.pg_shdescription s
    where s.objoid = {database} and s.classoid = 1262),
  (select string_agg(row(s.provider, s.label)::text, ' ' order by s.provider) from pg_catalog.pg_shseclabel s
    where s.objoid = {database} and s.classoid = 1262),
  (select string_agg(row({subscription})::text, ' ' order by s.oid) from pg_catalog.pg_subscription s
    where s.subdbid = {database}))
"""


SUBSCRIPTION = """
select string_agg(format('s.%I', attname), ', ' order by attnum) from pg_catalog.pg_attribute
 where attrelid = 'pg_catalog.pg_subscription'::regclass and attnum > 0 and not attisdropped
   and has_column_privilege(attrelid, attnum, 'select')
"""


def newer(name: str, class_: str | None, object_: str | None, base: str) -> str:
    """A query for what was written in a catalog since ``base``, in words."""
    what = f"pg_catalog.pg_describe_object({class_}, {object_}, 0)" if class_ else f"'a row of {name}'"
    return f"""{APART} select distinct coalesce({what}, '{name}') from pg_catalog.{name} x
        where age(x.xmin) <= age('{base}'::xid)
          and not exists (select from apart where apart.class = {class_ or 0} and apart.object = {object_ or 0})
        order by 1 limit 10"""


def in_words(name: str, found: Sequence[str]) -> list[str]:
    """What has changed in one catalog, for a message."""
    if name == "pg_database":
        return ["the database's own settings, rights, comment or subscriptions"]
    return [f"{text} ({name})" for text in found] or [f"something was dropped or removed from {name}"]


# The catalogs of which an index begins with the object that a row belongs to.
_INDEXED = """
select c.relname::text, format('x.%I::oid', a.attname) from pg_catalog.pg_index i
  join pg_catalog.pg_class c on c.oid = i.indrelid
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
 where c.relnamespace = 'pg_catalog'::regnamespace
"""
# The rows of a catalog: all of them; those that are not of the server's own objects, but of what has a number of its
# own; and, where something is said of others, those of the schema public (2200) and of large objects as well, whose
# numbers whoever makes them chooses.
_WHOLE = "select xmin from pg_catalog.{name}"
_NOT_OF_THE_SERVER = "select xmin from pg_catalog.{name} x where {object} >= 16384"
_SAID_OF_OTHERS = (
    _NOT_OF_THE_SERVER
    + """ union all select xmin from pg_catalog.{name} x where {object} = 2200
    union all select x.xmin from pg_catalog.pg_largeobject_metadata l
      join pg_catalog.{name} x on x.classoid = 2613 and x.objoid = l.oid where l.oid < 16384"""
)
_FEW = 100  # rows are read sooner than an index

_OLDEST = "select (pg_snapshot_xmin(pg_current_snapshot())::text::numeric % 4294967296)::text"


class _Counted:
    """The numbers of rows in catalogs, and the transaction since which nobody has written there.

    :param facts: a query for one value, which is asked for in passing.
    """

    def __init__(self, connection: Connection, sources: dict[str, str], facts: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor()  # making one for each look would take as long as the look
        self._names = list(sources)
        parts = (
            f"select {number} as number, count(*) as rows, min(age(x.xmin)) as youngest from ({source}) x"
            for number, source in enumerate(sources.values(), 1)
        )
        self._all = f"({' union all '.join(parts)})"
        # A new row is young, and one that has gone is missing: together they tell as much as each catalog by itself.
        self._look = (
            f"select count(*), coalesce(min(age(x.xmin)) > (select age(%b::xid) offset 0), true), ({facts})"
            f" from ({' union all '.join(sources.values())}) x"
        ).encode()
        self._written = (
            f"select k.number from {self._all} k"
            " where k.rows <> (%b::int8[])[k.number] or k.youngest <= (select age(%b::xid) offset 0)"
        ).encode()
        self.anew()

    def anew(self) -> None:
        """What was written until now was no change."""
        ((self._base,),) = self._connection.execute(_OLDEST.encode()).fetchall()
        rows = self._connection.execute(f"select number, rows from {self._all} k order by 1".encode()).fetchall()
        self._rows = f"{{{','.join(str(count) for _, count in rows)}}}"
        self._sum = sum(count for _, count in rows)

    def look(self) -> tuple[bool, str]:
        """Whether one of the catalogs may have been written since; the facts."""
        ((rows, is_old, facts),) = self._cursor.execute(self._look, (self._base,)).fetchall()
        return rows != self._sum or not is_old, facts

    def written(self) -> list[str]:
        """The catalogs that may have been written since."""
        rows = self._cursor.execute(self._written, (self._rows, self._base))
        return [self._names[number - 1] for (number,) in rows]


class Catalogs:
    """The state of the catalogs from the moment when this is made, for a role that may make nothing in the database.

    In each test those rows are counted that such a role can write; all of them when everything is asked for.
    """

    def __init__(self, connection: Connection, database: int) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._catalogs: dict[str, tuple[str | None, str | None, str]] = {
            name: (class_, object_, digest)
            for _, name, class_, object_, digest in connection.execute(CATALOGS.encode())
        }
        ((self._base, subscription),) = connection.execute(f"select ({_OLDEST}), ({SUBSCRIPTION})".encode()).fetchall()
        indexed = set(connection.execute(_INDEXED.encode()).fetchall())
        mappings = "select string_agg(m::text, ' ' order by m.umid) from pg_catalog.pg_user_mappings m"
        facts = FACTS.format(database=database, subscription=subscription)
        facts = f"select concat(({facts}), ({mappings}))"
        whole = {name: _WHOLE.format(name=name) for name in self._catalogs}
        sizes = " union all ".join(f"select '{name}', count(*) from pg_catalog.{name}" for name in whole)
        part = {
            name: (_SAID_OF_OTHERS if object_ == "x.objoid::oid" else _NOT_OF_THE_SERVER).format(
                name=name, object=object_.removesuffix("::oid")
            )
            for name, rows in connection.execute(sizes.encode()).fetchall()
            for object_ in (self._catalogs[name][1],)
            if rows > _FEW and object_ is not None and (name, object_) in indexed
        }
        self._all = _Counted(connection, whole, facts)
        self._own = _Counted(connection, whole | part, facts)
        self._digests = self._digest(self._catalogs)
        _, self._facts = self._own.look()

    def _digest(self, names: Iterable[str]) -> dict[str, Any]:
        query = APART + " union all ".join(f"select '{name}', {self._catalogs[name][2]}" for name in names)
        return dict(self._connection.execute(query.encode(), prepare=False).fetchall())

    def count_anew(self) -> None:
        """What was written until now was no change."""
        self._own.anew()

    def changes(self, *, everything: bool = False) -> tuple[str, ...]:
        """What has changed, in words; nothing where all is as it was."""
        counted, changed = self._all if everything else self._own, []
        is_written, facts = counted.look()
        if is_written:
            written = counted.written()
            digests = self._digest(written)
            changed = [name for name in written if digests[name] != self._digests[name]]
            if not changed:
                counted.anew()
        if facts != self._facts:
            changed.append("pg_database")
        return tuple(text for name in changed for text in in_words(name, self._newer(name)))

    def _newer(self, name: str) -> list[str]:
        if name not in self._catalogs:
            return []
        class_, object_, _ = self._catalogs[name]
        query = newer(name, class_, object_, self._base)
        return [text for (text,) in self._connection.execute(query.encode(), prepare=False)]
