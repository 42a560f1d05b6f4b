"""What an ordinary role reads of PostgreSQL's catalog: tables, their references, sequences, views.

Names come qualified and quoted, because they are read with ``search_path = pg_catalog``.
"""

from __future__ import annotations

TABLES = b"""
select c.oid::regclass::text,
       format('%s%s overriding system value select %s', c.oid::regclass, ' (' || a.names || ')', a.fields),
       coalesce(t.quiet, ''), coalesce(t.loud, '')
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (
    select string_agg(quote_ident(attname), ', ' order by attnum) as names,
           string_agg('(x.r).' || quote_ident(attname), ', ' order by attnum) as fields from pg_attribute
     where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = '') a
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
select distinct a.rel::regclass::text, b.rel::regclass::text from pg_constraint c
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
