"""The SQL of the cleaning on PostgreSQL: the functions that put things back, and those for the rows of a class.

``clean()`` does a whole cleaning in one round trip.  It runs in a session with ``session_replication_role = replica``
(no foreign keys, no triggers or rules of the application; set once, because setting it throws the session's cached
plans away) and the setting ``_dbtestcase.cleaning`` (which keeps our own triggers quiet).
"""

from __future__ import annotations

__all__ = ["CLEAN_FUNCTION", "EXACT", "KEEP_FUNCTIONS"]

# pg_sequence_last_value() shows (1, not called) and (100, not called) alike, and pg_get_sequence_data() of PostgreSQL
# 18 is no faster than reading each sequence as a table.  So a setval(..., false) on a sequence whose table was not
# touched is looked for on demand only.
EXACT = """
create function _dbtestcase.moved_exactly() returns setof oid language plpgsql as $$
declare s record; same boolean;
begin
  for s in select seq, name, last_value, is_called from _dbtestcase.sequences loop
    execute format('select (last_value, is_called) = ($1, $2) from %s', s.name)
       into same using s.last_value, s.is_called;
    if not same then return next s.seq; end if;
  end loop;
end $$
"""

CLEAN_FUNCTION = """
create function _dbtestcase.put_back_large_objects() returns boolean language plpgsql as $$
declare l record; level boolean; changed boolean := false;
begin
  level := exists (select from _dbtestcase.class_level);
  for l in select m.oid from pg_largeobject_metadata m left join _dbtestcase.large_objects k
                  on k.loid = m.oid and k.for_class = level and k.owner = m.lomowner and k.data = lo_get(m.oid)
            where k.loid is null loop
    perform lo_unlink(l.oid);
    changed := true;
  end loop;
  for l in select k.* from _dbtestcase.large_objects k where k.for_class = level
              and not exists (select from pg_largeobject_metadata m where m.oid = k.loid) loop
    perform lo_from_bytea(l.loid, l.data);
    if l.owner::regrole <> current_user::regrole then
      execute format('alter large object %s owner to %s', l.loid, l.owner::regrole);
    end if;
    changed := true;
  end loop;
  return changed;
end $$;

-- database: its oid.  expected, lasting: the pids that may be connected, as long as they are idle; the latter may have
-- advisory locks.  sequences: 0 reads
-- those that may have moved, 1 reads all, 2 reads all as tables.
-- outcome: busy (nothing was done), altered (nothing was put back), clean (all is as it was).
-- disturbed: somebody began to work meanwhile.
create function _dbtestcase.clean(database oid, expected int[], lasting int[], sequences int,
    out outcome text, out restored text[], out rewound text[], out refreshed text[],
    out large_objects boolean, out bloated text[], out disturbed boolean)
language plpgsql as $$
declare t record; v record; marked oid[]; moved oid[]; target oid; size bigint; marks bigint; attempts bigint;
begin
  if {busy}
     or (current_setting('max_prepared_transactions') <> '0'
         and exists (select from pg_prepared_xact() p where p.dbid = database))
  then
    outcome := 'busy';
    return;
  end if;

  -- Read and delete in one statement: a mark that comes later is left for the next cleaning.
  with gone as (delete from _dbtestcase.touched returning rel)
  select coalesce(array_agg(distinct rel), '{}'), count(*) into marked, marks from gone;
  select case when a.is_called then a.last_value else 0 end into attempts from _dbtestcase.attempts a;

  -- Here and below: one look into an index for each mark, where a join would read the whole bookkeeping.
  if exists (select from _dbtestcase.altered) or exists (
       select from unnest(marked) m
        where (select true from _dbtestcase.family f where f.ancestor = m limit 1) is null
          and (select true from _dbtestcase.resets r where r.ancestor = m limit 1) is null
          and (select true from _dbtestcase.views w where w.view = m and w.fresh) is null)
  then
    outcome := 'altered';
    return;
  end if;

  foreach target in array array(
    select distinct f.rel from unnest(marked) m, lateral (
      select rel from _dbtestcase.family where ancestor = m offset 0) f)
  loop
    select * into t from _dbtestcase.tables b where b.rel = target;
    continue when not found;      -- a partitioned table has no rows of its own
    size := pg_relation_size(t.rel);
    if size > 0 or t.copy is not null or t.class_copy is not null then
      if t.before <> '' then execute t.before; end if;
      if size > 0 then execute 'delete from only ' || t.name; end if;
      if t.class_copy is not null or t.copy is not null then
        execute 'insert into ' || t.name || '(' || t.columns || ') overriding system value select '
                || t.columns || ' from ' || coalesce(t.class_copy, t.copy);
      end if;
      if t.after <> '' then execute t.after; end if;
      if size > 262144 and size > 4 * t.usual_size then bloated := bloated || t.name; end if;
    end if;
    restored := restored || t.name;
  end loop;

  if sequences = 2 then
    moved := array(select _dbtestcase.moved_exactly());
  elsif sequences = 1 or attempts <> marks then
    moved := array(select s.seq from _dbtestcase.sequences s
      where pg_sequence_last_value(s.seq) is distinct from case when s.is_called then s.last_value end);
  else
    moved := array(select s.seq from _dbtestcase.sequences s
      where s.free and pg_sequence_last_value(s.seq) is distinct from case when s.is_called then s.last_value end);
  end if;
  if marked <> '{}' then
    moved := moved || array(select r.seq from unnest(marked) m, lateral (
      select seq from _dbtestcase.resets where ancestor = m offset 0) r);
  end if;
  if moved <> '{}' then
    select array_agg(name) into rewound from (
      select s.name, setval(s.seq, s.last_value, s.is_called) from (select distinct unnest(moved) as seq) m, lateral (
        select * from _dbtestcase.sequences where seq = m.seq offset 0) s
    ) done;
  end if;

  if exists (select from _dbtestcase.views) then
    for v in select * from _dbtestcase.views where view = any (marked) order by depth loop
      execute format('refresh materialized view %s %s', v.name, case when v.populated then '' else 'with no data' end);
      refreshed := refreshed || v.name;
    end loop;
  end if;

  large_objects := (exists (select from pg_largeobject_metadata) or exists (select from _dbtestcase.large_objects))
                   and _dbtestcase.put_back_large_objects();

  if attempts > 0 then perform setval('_dbtestcase.attempts', 1, false); end if;
  if pg_relation_size('_dbtestcase.touched') > 262144 then bloated := bloated || '_dbtestcase.touched'::text; end if;
  perform pg_stat_clear_snapshot();
  disturbed := {working};
  outcome := 'clean';
end $$;
"""

KEEP_FUNCTIONS = """
create function _dbtestcase.make_class_copy(rel oid) returns text language plpgsql as $$
declare t _dbtestcase.tables; place text := format('_dbtestcase.class_%s', rel);
begin
  select * into strict t from _dbtestcase.tables b where b.rel = make_class_copy.rel;
  execute format('create table %s as select %s from only %s with no data', place, t.columns, t.name);
  update _dbtestcase.tables b set class_copy = place where b.rel = make_class_copy.rel;
  return place;
end $$;

-- What is there now is what later cleanings put back.  Returns what stands in the way, or null.
create function _dbtestcase.keep() returns text language plpgsql as $$
declare t record; v record; obstacle text; stale boolean; place bigint; called boolean;
begin
  select string_agg(distinct command || coalesce(' ' || object, ''), ', ') into obstacle from _dbtestcase.altered;
  if obstacle is not null then return obstacle; end if;
  for t in select distinct b.* from _dbtestcase.family f join _dbtestcase.tables b on b.rel = f.rel
            where f.ancestor in (select rel from _dbtestcase.touched) loop
    if t.class_copy is not null then execute 'drop table ' || t.class_copy; end if;
    execute format('insert into %s select %s from only %s', _dbtestcase.make_class_copy(t.rel), t.columns, t.name);
  end loop;
  for t in select * from _dbtestcase.sequences loop
    execute 'select last_value, is_called from ' || t.name into place, called;
    update _dbtestcase.sequences k set last_value = place, is_called = called
     where k.seq = t.seq and (k.last_value, k.is_called) <> (place, called);
  end loop;
  for v in select * from _dbtestcase.views loop
    stale := false;
    if (select relispopulated from pg_class where oid = v.view) then
      execute format('select exists((select m::text from %1$s m) except all (select q::text from (%2$s) q))
                          or exists((select q::text from (%2$s) q) except all (select m::text from %1$s m))',
                     v.name, rtrim(pg_get_viewdef(v.view), '; ')) into stale;
    end if;
    update _dbtestcase.views set fresh = not stale,
        populated = (select relispopulated from pg_class where oid = v.view),
        for_class = for_class or view in (select rel from _dbtestcase.touched) where view = v.view;
  end loop;
  delete from _dbtestcase.large_objects where for_class;
  insert into _dbtestcase.large_objects select oid, true, lomowner, lo_get(oid) from pg_largeobject_metadata;
  delete from _dbtestcase.class_level;
  insert into _dbtestcase.class_level values (now());
  delete from _dbtestcase.touched;
  return null;
end $$;

-- Back to what the template holds: marks what the class had of its own, for the next clean().
create function _dbtestcase.forget() returns void language plpgsql as $$
declare t record;
begin
  for t in update _dbtestcase.tables b set class_copy = null from _dbtestcase.tables o
            where o.rel = b.rel and b.class_copy is not null returning b.rel, o.class_copy loop
    execute 'drop table ' || t.class_copy;
    insert into _dbtestcase.touched values (t.rel);
  end loop;
  update _dbtestcase.sequences set last_value = base_last_value, is_called = base_is_called
   where (last_value, is_called) <> (base_last_value, base_is_called);
  delete from _dbtestcase.large_objects where for_class;
  delete from _dbtestcase.class_level;
  insert into _dbtestcase.touched select view from _dbtestcase.views where for_class;
  update _dbtestcase.views set populated = base_populated, fresh = base_fresh, for_class = false;
end $$;
"""
