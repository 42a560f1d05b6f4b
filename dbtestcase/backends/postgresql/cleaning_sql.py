"""The SQL of the cleaning on PostgreSQL: the bookkeeping, and the triggers that note what is touched.

How it works.  Everything lives in a schema of its own, ``_dbtestcase``, which is on nobody's search path.

* A statement trigger on every table appends the table's oid to the unlogged table ``touched``.  It only ever appends:
  ``ON CONFLICT`` or an update would make two transactions of the application wait for each other.  A transaction that
  is rolled back takes its marks with it.
* The triggers are ``ENABLE ALWAYS``, so that ``session_replication_role = replica`` does not hide a statement, and
  their functions are ``SECURITY DEFINER``, so that an application's role needs no rights on our schema.
* Statement triggers fire on the table that a statement names, not on its partitions and children: ``reach`` maps every
  table to the tables whose rows a statement on it can change.
* Event triggers append to ``altered`` what changes the schema itself; a database that was altered is cloned anew.
* Sequences are not transactional: an insert that was rolled back has moved one and left no mark.  So the trigger counts
  in a sequence of our own as well, ``attempts``: more attempts than marks means that something was rolled back, and all
  sequences are read.  Those that no table uses are always read, and all of them where they are not many.
"""

from __future__ import annotations

from .catalog_state import APART, CATALOGS, COUNT, FACTS, SUBSCRIPTION
from .cleaning_functions import (
    CATALOG_FUNCTIONS,
    CLEAN_FUNCTION,
    EXACT,
    KEEP_FUNCTIONS,
    WRITERS,
)
from .connections import LOCKED, PREPARED, PRESENT

SCHEMA = "_dbtestcase"
"""The schema of the bookkeeping: leave it out where schemas are compared (Alembic's ``include_name``)."""

MARK = """
create function _dbtestcase.mark() returns trigger language plpgsql security definer as $$
begin
  -- Asked here: a WHEN of the trigger would be parsed again in each statement, which takes longer than this call.
  if current_setting('_dbtestcase.cleaning', true) is distinct from 'on' then
    perform nextval('_dbtestcase.attempts'::regclass);
    insert into _dbtestcase.touched values (tg_relid, current_setting('search_path'));
  end if;
  return null;
end $$
"""

TABLES = """
create sequence _dbtestcase.attempts;
create unlogged table _dbtestcase.touched (rel oid not null, path text);

create unlogged table _dbtestcase.altered (command text not null, object text);

-- Empty once the server has recovered from a crash, as the two above are then.
create unlogged table _dbtestcase.alive (since timestamptz not null);

-- Every table that holds rows.  "filled", "class_level": there are copies of reference rows, of the class's own (which
-- may be none).  "fill" puts the copies back.  "path": the search_path of the session that wrote the rows of the class.
-- "wanted_rows": how many are put back.
create table _dbtestcase.tables (
  rel oid primary key, name text not null, fill text not null, filled boolean not null, class_level boolean not null,
  path text, usual_size bigint not null, before text not null, after text not null, base_rows bigint not null default 0,
  wanted_rows bigint not null default 0);

-- The copies, each row as its type writes it, so that nothing here depends on a type of the application's.
create table _dbtestcase.rows (name text not null, for_class boolean not null, data text not null);
create index on _dbtestcase.rows (name, for_class);

-- See catalog_state.py.  While there are so many "pages", all of them visible, and no more "vacuums", nobody has
-- written.
create table _dbtestcase.catalogs (
  rel oid primary key, pages bigint not null default 0, vacuums bigint not null default 0, base xid not null,
  rows bigint, old_rows bigint, writers numeric, name text not null, class text, object text,
  digest_query text not null, digest numeric);

-- What a mark of "ancestor" can have changed: the rows of which tables (its own, its partitions', its children's), in
-- the order in which they were made, and the sequences that these use, or itself.
create table _dbtestcase.reach (ancestor oid primary key, tables oid[] not null, sequences oid[] not null);

-- "free": no table uses it.
create table _dbtestcase.sequences (
  seq oid primary key, name text not null, free boolean not null default true,
  last_value bigint not null, is_called boolean not null,
  base_last_value bigint not null, base_is_called boolean not null, definition text not null);

-- "fresh": a REFRESH gives exactly the state to put back.
create table _dbtestcase.views (
  view oid primary key, name text not null, depth int not null, populated boolean not null, fresh boolean not null,
  base_populated boolean not null, base_fresh boolean not null, for_class boolean not null);

create table _dbtestcase.large_objects (
  loid oid, for_class boolean, owner oid not null, rights text, data bytea not null, primary key (loid, for_class));

-- Holds a row while the rows of a class are what is put back.
create table _dbtestcase.class_level (kept_at timestamptz not null);
"""

DEEP = """
with recursive uses(view, used) as (
  select distinct r.ev_class, d.refobjid from pg_rewrite r join pg_depend d on d.classid = 2618 and d.objid = r.oid
   where d.refclassid = 1259 and d.refobjid <> r.ev_class),
deep(view, depth) as (
  select oid, 0 from pg_class where relkind = 'm'
  union select u.view, deep.depth + 1 from deep join uses u on u.used = deep.view where deep.depth < 100)
"""
"""How far above a materialized view each view stands that is made from it: the order in which they are refreshed."""

DEFINITION_OF_SEQUENCE = """
create function _dbtestcase.definition(sequence oid) returns text language sql stable as $$
  select format('%s', (c.relname, c.relnamespace, c.relowner, c.relpersistence, c.relacl, s.seqtypid, s.seqstart,
                       s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
                       (select array_agg((d.refobjid, d.refobjsubid, d.deptype)::text order by 1)
                          from pg_catalog.pg_depend d where d.classid = 1259 and d.objid = c.oid)))
    from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid where c.oid = sequence
$$
"""

# What was there when the bookkeeping was installed.  The script runs with search_path = pg_catalog, so that
# oid::regclass::text is always qualified and quoted as it has to be.
CATALOG = """
do $do$
declare t record; s record; v record; noisy record; filled boolean; stale boolean;
begin
  create temporary table members on commit drop as
    select c.oid, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and c.relpersistence in ('p', 'u') and n.nspname <> 'information_schema'
       and n.nspname !~ '^pg_' and n.nspname <> '_dbtestcase';

  insert into _dbtestcase.tables
    select m.oid, m.oid::regclass::text,
           format('insert into %1$s%2$s overriding system value select %3$s from (select data::%1$s as r
                     from _dbtestcase.rows where name = %4$L and for_class = $1 offset 0) x',
                  m.oid::regclass, ' (' || c.names || ')', c.fields, m.oid::regclass),
           false, false, null, 0, '', ''
      from members m cross join lateral (
        select string_agg(quote_ident(a.attname), ', ' order by a.attnum) as names,
               string_agg('(x.r).' || quote_ident(a.attname), ', ' order by a.attnum) as fields from pg_attribute a
         where a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') c
     where m.relkind = 'r';

  create temporary table family on commit drop as
    with recursive f(ancestor, rel) as (
      select oid, oid from members union select f.ancestor, i.inhrelid from f join pg_inherits i on i.inhparent = f.rel)
    select ancestor, rel from f where rel in (select oid from members);

  for t in select rel, name from _dbtestcase.tables order by rel loop
    perform _dbtestcase.copy_rows(t.name, false);
  end loop;
  update _dbtestcase.tables b
     set filled = true, usual_size = pg_relation_size(b.rel), base_rows = r.count, wanted_rows = r.count
    from (select name, count(*) from _dbtestcase.rows group by name) r where r.name = b.name;

  -- An application's trigger or rule that is ENABLE ALWAYS or REPLICA would answer to the cleaning: it is switched off
  -- meanwhile.
  for noisy in
    select tgrelid as rel, 'trigger' as kind, tgname as name, tgenabled as enabled from pg_trigger
     where tgenabled in ('A', 'R') and not tgisinternal and tgname <> '_dbtestcase_mark'
    union all
    select ev_class, 'rule', rulename, ev_enabled from pg_rewrite where ev_enabled in ('A', 'R') and ev_type <> '1'
  loop
    update _dbtestcase.tables set
      before = before || format('alter table %s disable %s %I; ', name, noisy.kind, noisy.name),
      after = after || format('; alter table %s enable %s %s %I', name,
                case noisy.enabled when 'A' then 'always' else 'replica' end, noisy.kind, noisy.name)
     where rel = noisy.rel;
  end loop;

  for s in select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind = 'S' and c.relpersistence <> 't' and n.nspname !~ '^pg_' and n.nspname <> '_dbtestcase'
  loop
    execute format('insert into _dbtestcase.sequences
                    select %s, %L, true, last_value, is_called, last_value, is_called, %L from %s',
                   s.oid, s.oid::regclass, _dbtestcase.definition(s.oid), s.oid::regclass);
  end loop;
  -- A table uses a sequence that it owns (serial, identity) or that one of its defaults calls; and so do the tables
  -- above it and below it, because a statement on one of them inserts there.
  insert into _dbtestcase.reach
    with uses(rel, seq) as (
      select refobjid, objid from pg_depend
       where classid = 1259 and refclassid = 1259 and refobjsubid > 0 and deptype in ('a', 'i')
      union
      select a.adrelid, d.refobjid from pg_attrdef a join pg_depend d on d.classid = 2604 and d.objid = a.oid
       where d.refclassid = 1259 and d.deptype = 'n'),
    resets(ancestor, seq) as (
      select k.seq, k.seq from _dbtestcase.sequences k
      union select f.ancestor, k.seq from _dbtestcase.sequences k join uses u using (seq) join family f on f.rel = u.rel
      union select f.rel, k.seq from _dbtestcase.sequences k join uses u using (seq)
              join family f on f.ancestor = u.rel)
    select ancestor, coalesce(array_agg(distinct rel) filter (where rel is not null), '{}'),
           coalesce(array_agg(distinct seq) filter (where seq is not null), '{}')
      from (select ancestor, rel, null::oid as seq from family union all select ancestor, null, seq from resets) all_of
     group by ancestor;
  update _dbtestcase.sequences k set free = false
   where k.seq in (select unnest(r.sequences) from _dbtestcase.reach r where r.ancestor <> all (r.sequences));
  create index on _dbtestcase.sequences (seq) where free;

  for v in
    {deep}
    select c.oid, c.oid::regclass::text as name, max(deep.depth) as depth, c.relispopulated as populated
      from deep join pg_class c on c.oid = deep.view where c.relkind = 'm' group by c.oid
  loop
    stale := false;
    if v.populated then
      execute format('select exists((select m::text from %1$s m) except all (select q::text from (%2$s) q))
                          or exists((select q::text from (%2$s) q) except all (select m::text from %1$s m))',
                     v.name, rtrim(pg_get_viewdef(v.oid), '; ')) into stale;
    end if;
    insert into _dbtestcase.views
      values (v.oid, v.name, v.depth, v.populated, not stale, v.populated, not stale, false);
  end loop;

  insert into _dbtestcase.large_objects
    select oid, false, lomowner, lomacl::text, lo_get(oid) from pg_largeobject_metadata;

  -- Last, so that our own copying leaves no marks.  The bookkeeping itself is watched as well: a mark of an unknown
  -- table means that somebody changed it, and the database is cloned anew.
  for t in select oid from members
           union all select oid from pg_class where relnamespace = '_dbtestcase'::regnamespace and relkind = 'r'
                        and relname not in ('touched', 'altered')
  loop
    execute format('create trigger _dbtestcase_mark before insert or update or delete or truncate on %s
                      for each statement execute function _dbtestcase.mark()', t.oid::regclass);
    execute format('alter table %s enable always trigger _dbtestcase_mark', t.oid::regclass);
  end loop;
  create trigger _dbtestcase_mark after truncate on _dbtestcase.touched execute function _dbtestcase.mark();
  create trigger _dbtestcase_mark after truncate on _dbtestcase.altered execute function _dbtestcase.mark();
  drop table members, family;     -- before the catalogs are counted
end $do$
"""

EVENT_TRIGGERS = """
create function _dbtestcase.note_command() returns event_trigger language plpgsql security definer as $$
declare c record;
begin
  if current_setting('_dbtestcase.cleaning', true) = 'on' then return; end if;
  for c in select * from pg_event_trigger_ddl_commands() loop
    if c.schema_name like 'pg_temp%' or tg_tag = 'REINDEX' then
      continue;
    elsif tg_tag = 'REFRESH MATERIALIZED VIEW' then
      perform nextval('_dbtestcase.attempts'::regclass);
      insert into _dbtestcase.touched values (c.objid, null);
    elsif tg_tag = 'ALTER SEQUENCE' and exists (select from _dbtestcase.sequences s
          where s.seq = c.objid and s.definition = _dbtestcase.definition(c.objid)) then
      perform nextval('_dbtestcase.attempts'::regclass);
      insert into _dbtestcase.touched values (c.objid, null);     -- ALTER SEQUENCE ... RESTART
    else
      insert into _dbtestcase.altered values (tg_tag, coalesce(c.object_identity, c.object_type));
    end if;
  end loop;
exception when undefined_table or invalid_schema_name then
  null;     -- somebody drops the bookkeeping itself, which the next cleaning notices
end $$;

create function _dbtestcase.note_drop() returns event_trigger language plpgsql security definer as $$
begin
  if current_setting('_dbtestcase.cleaning', true) = 'on' then return; end if;
  insert into _dbtestcase.altered
    select tg_tag, object_identity from pg_event_trigger_dropped_objects() where original and not is_temporary;
exception when undefined_table or invalid_schema_name then
  null;
end $$;

create event trigger _dbtestcase_command on ddl_command_end execute function _dbtestcase.note_command();
alter event trigger _dbtestcase_command enable always;
create event trigger _dbtestcase_drop on sql_drop execute function _dbtestcase.note_drop();
alter event trigger _dbtestcase_drop enable always;
"""


def install_script() -> str:
    """What makes the bookkeeping in a database; to be run in one transaction with ``search_path = pg_catalog``."""
    names = {"database": "here", "expected": "expected", "lasting": "lasting"}
    writers = WRITERS.format(database="here").strip()
    clean = CLEAN_FUNCTION.replace("{present}", PRESENT.format(**names).strip())
    clean = clean.replace("{locked}", LOCKED.format(**names).strip()).replace("{writers}", writers)
    clean = clean.replace("{prepared}", PREPARED.format(**names).strip())
    return ";\n".join(
        [
            f"create schema {SCHEMA}",
            f"comment on schema {SCHEMA} is 'dbtestcase: what a test touched, and copies of the reference rows'",
            TABLES.strip().rstrip(";"),
            MARK.strip(),
            DEFINITION_OF_SEQUENCE.strip(),
            EXACT.strip(),
            _catalog_functions(),
            clean.strip().rstrip(";"),
            KEEP_FUNCTIONS.strip().rstrip(";"),
            CATALOG.strip().replace("{deep}", DEEP),
            EVENT_TRIGGERS.strip().rstrip(";"),
            f"insert into {SCHEMA}.catalogs (rel, name, class, object, digest_query, base)"
            f" select c.*, {SCHEMA}.now_xid() from ({CATALOGS}) c",
            f"select {SCHEMA}.take_digests()",
            f"analyze {SCHEMA}.tables, {SCHEMA}.sequences, {SCHEMA}.reach",
        ]
    )


def _catalog_functions() -> str:
    parts = {
        "{apart}": APART.strip(),
        "{count}": COUNT.strip().format(base="%2$L", name="%1$I"),
        "{facts}": FACTS.strip().replace("'", "''").format(database="$1", subscription="%s"),
        "{subscription}": SUBSCRIPTION.strip(),
        "{writers}": WRITERS.format(database="database").strip(),
    }
    script = CATALOG_FUNCTIONS.strip().rstrip(";")
    for name, text in parts.items():
        script = script.replace(name, text)
    return script
