"""What an ordinary role reads of PostgreSQL's catalog: tables, their references, sequences, views, a fingerprint.

Names come qualified and quoted, because they are read with ``search_path = pg_catalog``.
"""

from __future__ import annotations

__all__ = ["FINGERPRINT", "REFERENCES", "SEQUENCES", "TABLES", "VIEWS"]

TABLES = b"""
select c.oid::int8, c.oid::regclass::text,
       coalesce((select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''), ''),
       coalesce(t.quiet, ''), coalesce(t.loud, '')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  left join lateral (
    select string_agg(format('alter table %s disable %s %I', c.oid::regclass, g.kind, g.name), '; ') as quiet,
           string_agg(format('alter table %s enable %s %s %I', c.oid::regclass,
                      case g.enabled when 'A' then 'always' when 'R' then 'replica' else '' end, g.kind, g.name),
                      '; ') as loud
      from (select tgrelid as rel, 'trigger' as kind, tgname as name, tgenabled as enabled from pg_trigger
             where not tgisinternal
            union all select ev_class, 'rule', rulename, ev_enabled from pg_rewrite where ev_type <> '1') g
     where g.rel = c.oid and g.enabled <> 'D' and pg_has_role(c.relowner, 'USAGE')) t on true
 where c.relkind = 'r' and c.relpersistence in ('p', 'u') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   and n.nspname <> '_dbtestcase'
 order by c.oid
"""

# Which table refers to which; a partitioned table's references are those of the partitions that hold its rows.
REFERENCES = b"""
with recursive family(ancestor, rel) as (
  select oid, oid from pg_class where relkind in ('r', 'p')
  union select f.ancestor, i.inhrelid from family f join pg_inherits i on i.inhparent = f.rel
          join pg_class c on c.oid = i.inhparent and c.relkind = 'p')
select distinct a.rel::int8, b.rel::int8 from pg_constraint c
  join family a on a.ancestor = c.conrelid join family b on b.ancestor = c.confrelid where c.contype = 'f'
"""

SEQUENCES = b"""
select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> '_dbtestcase'
 order by c.oid
"""

VIEWS = b"""
with recursive uses(view, used) as (
  select distinct r.ev_class, d.refobjid from pg_rewrite r join pg_depend d on d.classid = 2618 and d.objid = r.oid
   where d.refclassid = 1259 and d.refobjid <> r.ev_class),
deep(view, depth) as (
  select oid, 0 from pg_class where relkind = 'm'
  union select u.view, deep.depth + 1 from deep join uses u on u.used = deep.view where deep.depth < 100)
select c.oid::regclass::text, pg_get_viewdef(c.oid), max(deep.depth) from deep join pg_class c on c.oid = deep.view
 where c.relkind = 'm' group by c.oid order by 3
"""

# One number for everything that DDL changes, temporary things left out.  A row's xmin tells that it was written;
# pg_class and pg_sequence are compared by content, because TRUNCATE, REFRESH and RESTART write them as well.
FINGERPRINT = b"""
with relations as (
  select c.* from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.oid >= 16384 and c.relpersistence <> 't' and n.nspname !~ '^pg_'
), parts(part, rows, digest) as (
  select 'relations', count(*), sum(hashtextextended((oid, relname, relnamespace, reltype, relowner, relkind, relnatts,
      relchecks, relrowsecurity, relforcerowsecurity, relacl, reloptions, relam, reltablespace)::text, 0))
      from relations
  union all select 'columns', count(*), sum(hashtextextended((attrelid, attnum, xmin)::text, 0)) from pg_attribute
      where attrelid in (select oid from relations)
  union all select 'defaults', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_attrdef
      where adrelid in (select oid from relations)
  union all select 'constraints', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_constraint
      where oid >= 16384 and (conrelid = 0 or conrelid in (select oid from relations))
  union all select 'triggers', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_trigger
      where tgrelid in (select oid from relations)
  union all select 'rules', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_rewrite
      where ev_class in (select oid from relations)
  union all select 'policies', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_policy
  union all select 'types', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_type
      where oid >= 16384 and typrelid = 0 and typnamespace in (select oid from pg_namespace where nspname !~ '^pg_')
        and (typelem = 0 or (select typrelid from pg_type e where e.oid = pg_type.typelem) = 0)
  union all select 'enum labels', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_enum
  union all select 'functions', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_proc
      where oid >= 16384 and pronamespace in (select oid from pg_namespace where nspname !~ '^pg_')
  union all select 'schemas', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_namespace
      where oid >= 16384 and nspname !~ '^pg_'
  union all select 'sequence definitions', count(*), sum(hashtextextended(q::text, 0)) from pg_sequence q
      where seqrelid in (select oid from relations)
  union all select 'extensions', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_extension
  union all select 'default privileges', count(*), sum(hashtextextended((oid, xmin)::text, 0)) from pg_default_acl
)
select part, format('%s/%s', rows, digest) from parts
"""
