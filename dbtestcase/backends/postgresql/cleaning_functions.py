"""The SQL of the cleaning on PostgreSQL: the functions that put things back, and those for the rows of a class.

``clean()`` does a whole cleaning in one round trip.  It runs in a session with ``session_replication_role = replica``
(no foreign keys, no triggers or rules of the application; set once, because setting it throws the session's cached
plans away) and the setting ``_dbtestcase.cleaning`` (which keeps our own triggers quiet).
"""

from __future__ import annotations

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

# See catalog_state.py.  take() may only be called while nobody else works in the database.
WRITERS = """
  select row(d.xmin, array(select s.xmin from pg_db_role_setting s where s.setdatabase = {database}),
             array(select s.xmin from pg_shdescription s where s.objoid = {database} and s.classoid = 1262),
             array(select s.xmin from pg_shseclabel s where s.objoid = {database} and s.classoid = 1262),
             array(select s.xmin from pg_subscription s where s.subdbid = {database}))
    from pg_database d where d.oid = {database}
"""

CATALOG_FUNCTIONS = """
create function _dbtestcase.copy_rows(name text, for_class boolean) returns void language plpgsql
set search_path = pg_catalog set datestyle = 'ISO, MDY' set intervalstyle = 'postgres' set extra_float_digits = 1 as $$
begin
  execute format('insert into _dbtestcase.rows select %L, %L, format(''%%s'', _dbtestcase) from only %s _dbtestcase',
                 name, for_class, name);
end $$;

create function _dbtestcase.now_xid() returns xid language sql as $$
  select (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::text::xid
$$;

-- How many pages a catalog has, and how many of them nobody has written since VACUUM looked at them.  It needs
-- libraries of PostgreSQL's own that are not installed everywhere; and, to know of another VACUUM, counters that are
-- exact since version 15.
create type _dbtestcase.visible as (all_visible bigint, all_frozen bigint);
do $do$
begin
  if current_setting('server_version_num')::int < 150000 then raise exception 'too old'; end if;
  create function _dbtestcase.visibility(catalog regclass) returns _dbtestcase.visible
    language c as '$libdir/pg_visibility', 'pg_visibility_map_summary';
  create function _dbtestcase.pages(catalog regclass) returns bigint
    language c as '$libdir/pgstattuple', 'pg_relpagesbyid_v1_5';
exception when others then
  create function _dbtestcase.visibility(catalog regclass) returns _dbtestcase.visible
    language sql as 'select row(-1, -1)::_dbtestcase.visible';
  create function _dbtestcase.pages(catalog regclass) returns bigint language sql as 'select 1::bigint';
end $do$;

create function _dbtestcase.count_rows(name text, base xid, out rows bigint, out old_rows bigint, out writers numeric)
language plpgsql as $$
begin
  execute format($q${count}$q$, name, base) into rows, old_rows, writers;
end $$;

create function _dbtestcase.digests(rels oid[]) returns table (rel oid, digest numeric) language plpgsql as $$
begin
  return query execute $q${apart}$q$ || (
    select string_agg(format('select %s::oid, %s', c.rel, c.digest_query), ' union all ')
      from _dbtestcase.catalogs c where c.rel = any (rels));
end $$;

create function _dbtestcase.take_digests() returns void language plpgsql as $$
begin
  update _dbtestcase.catalogs c set digest = d.digest
    from _dbtestcase.digests(array(select k.rel from _dbtestcase.catalogs k)) d where d.rel = c.rel;
  update _dbtestcase.catalogs c
     set (rows, old_rows, writers) = (select n.* from _dbtestcase.count_rows(c.name, c.base) n);
end $$;

-- What is to be compared after each test, for those that were not written since they were counted.
create function _dbtestcase.take_sizes(rels oid[]) returns void language sql as $$
  update _dbtestcase.catalogs c set vacuums = pg_stat_get_vacuum_count(c.rel) + pg_stat_get_autovacuum_count(c.rel),
         pages = _dbtestcase.pages(c.rel)
   where c.rel = any (rels) and exists (select from _dbtestcase.count_rows(c.name, c.base) n
                                         where (c.rows, c.old_rows, c.writers) = (n.rows, n.old_rows, n.writers))
$$;

-- Of catalogs that may have been written: the names of those that have changed, and those that were not written at all.
create function _dbtestcase.look_closer(suspects oid[], out changed text[], out unwritten oid[]) language plpgsql as $$
declare written oid[]; c record;
begin
  changed := '{}'; unwritten := '{}'; written := '{}';
  for c in select k.rel, (k.rows, k.old_rows, k.writers) = (n.rows, n.old_rows, n.writers) as same
             from _dbtestcase.catalogs k cross join lateral _dbtestcase.count_rows(k.name, k.base) n
            where k.rel = any (suspects) loop
    if c.same then unwritten := unwritten || c.rel; else written := written || c.rel; end if;
  end loop;
  if written = '{}' then return; end if;
  changed := array(select k.name from _dbtestcase.digests(written) d join _dbtestcase.catalogs k using (rel)
                    where d.digest is distinct from k.digest);
  if changed = '{}' then
    update _dbtestcase.catalogs k set (rows, old_rows, writers) = (
      select n.* from _dbtestcase.count_rows(k.name, k.base) n) where k.rel = any (written);
  end if;
end $$;

-- How many connections the database has had; -1 where the server does not count them in time.
do $do$
begin
  if current_setting('server_version_num')::int < 150000 then
    create function _dbtestcase.sessions(database oid) returns bigint language sql as 'select -1::bigint';
  else
    create function _dbtestcase.sessions(database oid) returns bigint language sql as
      'select pg_stat_get_db_sessions(database)';
  end if;
end $do$;

-- Who wrote them, which says at less cost whether they have to be read.
create function _dbtestcase.writers_of_facts(database oid) returns text language plpgsql as $$
begin
  return ({writers});
end $$;

do $do$
begin
  execute format('create function _dbtestcase.facts(database oid) returns text language plpgsql as $$
                  begin return ({facts}); end $$', ({subscription}));
end $do$;
"""

CLEAN_FUNCTION = """
create function _dbtestcase.put_back_large_objects() returns boolean language plpgsql as $$
declare l record; level boolean; changed boolean := false;
begin
  level := exists (select from _dbtestcase.class_level);
  for l in select m.oid from pg_largeobject_metadata m left join _dbtestcase.large_objects k
                  on k.loid = m.oid and k.for_class = level and k.owner = m.lomowner and k.data = lo_get(m.oid)
                     and k.rights is not distinct from m.lomacl::text
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
    if l.rights is distinct from (select m.lomacl::text from pg_largeobject_metadata m where m.oid = l.loid) then
      raise exception 'the rights on the large object % were changed', l.loid;
    end if;
    changed := true;
  end loop;
  return changed;
end $$;

-- expected, lasting: the pids that are known; the latter may have advisory locks.  sequences: 0 reads those that may
-- have moved, 1 reads all, 2 reads all as tables.  locks: somebody may have taken advisory locks.
-- known: how many connections the database has had, as far as the caller knows.
-- since: the first transaction after the last cleaning; negative: others were under way; 0: unknown.
-- Settings of the session: the database, the search_path of the application, what facts() and writers_of_facts() said
-- in the beginning.
-- outcome: busy (nothing was done), altered (nothing was put back), clean (all is as it was).
-- changed: the catalogs that did.  unwritten: those that VACUUM would make fit for the first look again.
-- disturbed: somebody began to work meanwhile.  present: how many of "expected" are there.  sessions: see "known".
-- from_now: see "since".
create function _dbtestcase.clean(expected int[], lasting int[], sequences int, locks boolean, known bigint,
    since bigint, out outcome text, out restored text[], out rewound text[], out refreshed text[],
    out large_objects boolean, out bloated text[], out disturbed boolean, out changed text[], out unwritten oid[],
    out present bigint, out sessions bigint, out from_now bigint)
language plpgsql as $$
declare
  here constant oid := current_setting('_dbtestcase.database');
  working boolean; held boolean; strangers bigint; ignored bigint;
  t record; v record; tables oid[] := '{}'; resets oid[] := '{}'; others oid[] := '{}'; moved oid[]; suspects oid[];
  marks bigint := 0; attempts bigint; seen pg_snapshot; top bigint; own bigint; quiet boolean; noted boolean;
  objects boolean := false; writers text; age_since int; same_rows bigint;
begin
  -- As few statements as can be: to begin one takes as long as what most of them do.
  select p.*, {prepared}, (select case when a.is_called then a.last_value else 0 end from _dbtestcase.attempts a),
         pg_current_snapshot()
    into working, present, strangers, held, attempts, seen from ({present}) p;
  -- What others did no statement of ours shows; also those that have come and gone.
  sessions := _dbtestcase.sessions(here);
  if strangers > 0 or sessions <> known then sequences := 2; end if;
  if not (working or held) and (locks or sequences = 2) then held := {locked}; end if;
  if working or held then
    outcome := 'busy';
    return;
  end if;

  top := pg_snapshot_xmax(seen)::text::bigint;
  quiet := since = top;      -- no transaction has written: nothing but sequences can have changed
  if not quiet then
    -- Read and delete in one statement: a mark that comes later is left for the next cleaning.  One look into the index
    -- for each mark, where a join would read the whole bookkeeping.
    with gone as (delete from _dbtestcase.touched returning rel),
         mark as (select rel, count(*) as number from gone group by rel),
         reached as (select m.rel, m.number, r.tables, r.sequences from mark m left join lateral (
           select * from _dbtestcase.reach where ancestor = m.rel offset 0) r on true)
    select coalesce(sum(number), 0), array(select unnest(r.tables) from reached r),
           array(select unnest(r.sequences) from reached r), array(select r.rel from reached r where r.tables is null)
      into marks, tables, resets, others from reached;

    select array(select c.rel from _dbtestcase.catalogs c
             where c.pages <> _dbtestcase.pages(c.rel) or (c.pages > 0 and (
                   c.pages <> (_dbtestcase.visibility(c.rel)).all_visible
                or c.vacuums <> pg_stat_get_vacuum_count(c.rel) + pg_stat_get_autovacuum_count(c.rel)))),
           ({writers})::text, exists (select from _dbtestcase.altered),
           exists (select from pg_largeobject_metadata) or exists (select from _dbtestcase.large_objects)
      into suspects, writers, noted, objects;
    if suspects <> '{}' then
      select l.changed, l.unwritten into changed, unwritten from _dbtestcase.look_closer(suspects) l;
    end if;
    if current_setting('_dbtestcase.writers') <> writers
       and current_setting('_dbtestcase.facts') <> _dbtestcase.facts(here) then
      changed := changed || 'pg_database'::text;
    end if;
    if noted or changed <> '{}' or (others <> '{}' and exists (
         select from unnest(others) m where not exists (select from _dbtestcase.views w where w.view = m and w.fresh)))
    then
      outcome := 'altered';
      return;
    end if;
    if since <> 0 then age_since := age((abs(since) % 4294967296)::text::xid); end if;
  end if;

  -- Tables in the order in which they were made: a CHECK may look into another one.
  for t in select b.*, pg_relation_size(b.rel) as size from (select distinct unnest(tables) as rel) m, lateral (
             select * from _dbtestcase.tables where rel = m.rel offset 0) b order by b.rel
  loop      -- a partitioned table has no rows of its own
    if t.size > 0 or t.filled or t.class_level then
      if t.before <> '' then execute t.before; end if;
      same_rows := null;
      if (t.filled or t.class_level) and age_since is not null then
        -- Rows that nobody has written since stay, if none of them is missing.
        execute 'with new as (delete from only ' || t.name || ' where age(xmin) <= $1) select count(*) from only '
                || t.name || ' where age(xmin) > $1' into same_rows using age_since;
      end if;
      if same_rows is distinct from t.wanted_rows and t.size > 0 then execute 'delete from only ' || t.name; end if;
      if same_rows is distinct from t.wanted_rows and (t.filled or t.class_level) then
        perform set_config('search_path', coalesce(t.path, current_setting('_dbtestcase.path')), true);
        execute t.fill using t.class_level;
        perform set_config('search_path', 'pg_catalog', true);
      end if;
      if t.after <> '' then execute t.after; end if;
      if t.size > 262144 and t.size > 4 * t.usual_size then bloated := bloated || t.name; end if;
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
  moved := moved || resets;
  if moved <> '{}' then
    select array_agg(name) into rewound from (
      select s.name, setval(s.seq, s.last_value, s.is_called) from (select distinct unnest(moved) as seq) m, lateral (
        select * from _dbtestcase.sequences where seq = m.seq offset 0) s
    ) done;
  end if;

  if others <> '{}' then
    for v in select * from _dbtestcase.views where view = any (others) order by depth loop
      execute format('refresh materialized view %s %s', v.name, case when v.populated then '' else 'with no data' end);
      refreshed := refreshed || v.name;
    end loop;
  end if;

  large_objects := objects and _dbtestcase.put_back_large_objects();

  disturbed := exists (select from _dbtestcase.attempts a where a.is_called and a.last_value <> attempts);
  if attempts > 0 then perform setval('_dbtestcase.attempts', 1, false); end if;
  if pg_relation_size('_dbtestcase.touched') > 262144 then bloated := bloated || '_dbtestcase.touched'::text; end if;
  perform pg_stat_clear_snapshot();
  {present} into working, ignored, ignored;
  disturbed := disturbed or working;
  own := pg_current_xact_id_if_assigned()::text::bigint;
  from_now := coalesce(own + 1, top);
  if pg_snapshot_xmin(seen) <> pg_snapshot_xmax(seen) or own <> top then from_now := -from_now; end if;
  outcome := 'clean';
end $$;
"""

KEEP_FUNCTIONS = """
-- What is there now is what later cleanings put back.  Returns what stands in the way, or null.
create function _dbtestcase.keep() returns text language plpgsql as $$
declare t record; v record; obstacle text; stale boolean; place bigint; called boolean;
begin
  select string_agg(distinct command || coalesce(' ' || object, ''), ', ') into obstacle from _dbtestcase.altered;
  if obstacle is not null then return obstacle; end if;
  for t in select b.name, b.rel, max(m.path) as path
             from _dbtestcase.touched m join _dbtestcase.reach f on f.ancestor = m.rel
             join _dbtestcase.tables b on b.rel = any (f.tables) group by 1, 2 loop
    delete from _dbtestcase.rows r where r.name = t.name and r.for_class;
    perform _dbtestcase.copy_rows(t.name, true);
    update _dbtestcase.tables b set class_level = true, path = t.path,
        wanted_rows = (select count(*) from _dbtestcase.rows r where r.name = t.name and r.for_class)
     where b.rel = t.rel;
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
  insert into _dbtestcase.large_objects
    select oid, true, lomowner, lomacl::text, lo_get(oid) from pg_largeobject_metadata;
  delete from _dbtestcase.class_level;
  insert into _dbtestcase.class_level values (now());
  delete from _dbtestcase.touched;
  return null;
end $$;

-- Back to what the template holds: marks what the class had of its own, for the next clean().
create function _dbtestcase.forget() returns void language plpgsql as $$
begin
  delete from _dbtestcase.rows where for_class;
  with own as (update _dbtestcase.tables set class_level = false, path = null, wanted_rows = base_rows
                where class_level returning rel)
  insert into _dbtestcase.touched select rel from own;
  update _dbtestcase.sequences set last_value = base_last_value, is_called = base_is_called
   where (last_value, is_called) <> (base_last_value, base_is_called);
  delete from _dbtestcase.large_objects where for_class;
  delete from _dbtestcase.class_level;
  insert into _dbtestcase.touched select view from _dbtestcase.views where for_class;
  update _dbtestcase.views set populated = base_populated, fresh = base_fresh, for_class = false;
end $$;
"""
