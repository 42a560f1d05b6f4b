"""Statements that change something else than rows in a PostgreSQL database, and a schema for them to work on.

Each leaves something in a full dump, or may.  ``@DB`` is the database, ``@ROLE`` the role that runs them.
"""

from __future__ import annotations

__all__ = ["BY_OWNERS", "BY_SUPERUSERS", "CLASS_ROWS", "ROWS", "SCHEMA", "SUPERUSERS_SCHEMA"]

SCHEMA = """
create type mood as enum ('sad', 'ok');
create type pair as (a int, b text);
create domain positive as int check (value > 0);
create domain slugged as text;
create schema other;
create function inner_lower(t text) returns text language sql immutable as 'select lower(t)';
create function slug(t text) returns text language plpgsql immutable as 'begin return inner_lower(t); end';
alter domain slugged add check (slug(value) <> 'bad');
create function audit() returns trigger language plpgsql as 'begin return null; end';
create procedure nothing_much() language sql as 'select 1';
create function plus(int, int) returns int language sql immutable as 'select $1 + $2';
create aggregate total(int) (sfunc = plus, stype = int);
create table person (id serial primary key, name text not null, mood mood default 'ok', at pair, tags mood[],
  handle slugged, slug text generated always as (slug(name)) stored, age positive,
  check (slug(name) <> 'nobody'), check (age < 200) no inherit);
create index person_slug on person (slug(name));
create index person_age on person (age);
create table booking (room int, during int4range, exclude using gist (during with &&));
create table child (id int primary key, person_id int references person on delete cascade deferrable);
create table measure (day date not null, value float8) partition by range (day);
create table measure_old partition of measure for values from (minvalue) to ('2020-01-01');
create table measure_new partition of measure for values from ('2020-01-01') to (maxvalue);
create table detached (day date not null, value float8);
create table feeling (id int, mood mood, moods mood[]);
create table other.thing (id int generated always as identity, data jsonb);
create unlogged table scratch (a int);
create view people as select id, name from person;
create materialized view counted as select count(*) as n from person;
create sequence ticket start 100;
create rule quiet as on delete to scratch do instead nothing;
create trigger audit after insert on child for each row execute function audit();
alter table other.thing enable row level security;
create policy mine on other.thing using (id > 0);
create statistics person_statistics on name, age from person;
create collation plain from "C";
create text search dictionary word (template = simple);
create text search configuration words (copy = simple);
create operator === (leftarg = int, rightarg = int, function = int4eq);
create publication news for table child;
select lo_from_bytea(4711, 'large');
comment on table child is 'of a person';
insert into person (name, mood, at, tags, handle, age) values
  ('Ada', 'sad', (1, 'x'), '{ok,sad}', 'ada', 36), ('Bob', 'ok', null, null, null, null);
insert into feeling values (1, 'ok', '{sad}');
insert into booking values (1, '[1,5)'), (1, '[7,9)');
insert into child values (1, 1);
insert into measure values ('2019-01-01', 0.1), ('2021-01-01', 'NaN');
insert into other.thing (data) values ('{"a": null}'), (null);
refresh materialized view counted
"""

SUPERUSERS_SCHEMA = """
create operator family numbers using btree;
create function on_ddl() returns event_trigger language plpgsql as 'begin end';
create event trigger watch on ddl_command_end execute function on_ddl();
create foreign data wrapper nowhere;
create server far foreign data wrapper nowhere;
create user mapping for current_user server far options (user 'x');
create foreign table abroad (a int) server far;
create cast (pair as text) with inout
"""

CLASS_ROWS = """
insert into person (name, mood, at, tags, handle, age) values ('Cem', 'ok', (2, 'y'), '{sad}', 'cem', 12);
insert into feeling values (2, 'sad', '{ok,sad}');
insert into booking values (2, '[11,15)');
insert into child values (2, 3);
insert into measure values ('2018-01-01', 1), ('2024-01-01', '-Infinity');
insert into other.thing (data) values ('["of the class"]');
insert into scratch values (1);
select nextval('ticket');
select lo_from_bytea(4713, 'of the class');
refresh materialized view counted
"""

ROWS = [
    "insert into person (name, mood, age) values ('Cyd', 'ok', 5)",
    "update person set name = name || '!', tags = '{sad}'",
    "delete from person",
    "truncate person, child",
    "insert into booking values (2, '[20,30)')",
    "insert into measure values ('2018-05-05', 1), ('2022-05-05', 2)",
    "insert into other.thing (data) values ('[]')",
    "select nextval('ticket')",
    "select setval('ticket', 500, false)",
    "alter sequence ticket restart",
    "refresh materialized view counted",
    "create temporary table t (m mood, id serial primary key)",
    "select lo_put(4711, 0, 'small')",
    "analyze",
    "vacuum person",
]

BY_OWNERS = [
    "alter table person add note text",
    "alter table person add other_mood mood default 'sad'",
    "alter table person drop age",
    "alter table person drop mood cascade",
    "alter table child alter id type bigint",
    "alter table person alter name set default 'x'",
    "alter table person alter name drop not null",
    "alter table person alter mood drop default",
    "alter table booking alter room set not null",
    "alter table person alter name set statistics 500",
    "alter table person alter name set storage external",
    "alter table person alter name set (n_distinct = 5)",
    "alter table person alter name set compression pglz",
    "alter table person rename name to full_name",
    "alter table person rename to people_all",
    "alter table person rename constraint person_pkey to pk",
    "alter table person set schema other",
    "alter table person set (fillfactor = 50)",
    "alter table person set (toast.autovacuum_enabled = off)",
    "alter table person set (autovacuum_enabled = off)",
    "alter table person replica identity full",
    "alter table person replica identity using index person_pkey",
    "alter table person set without cluster",
    "alter table person cluster on person_pkey",
    "cluster child using child_pkey",
    "alter table person enable row level security",
    "alter table person force row level security",
    "alter table person add constraint young check (age < 100) not valid",
    "alter table person add constraint named unique (name)",
    "alter table person add exclude using btree (name with =)",
    "alter table child drop constraint child_person_id_fkey",
    "alter table child alter constraint child_person_id_fkey not deferrable",
    "alter table child add foreign key (id) references person not valid",
    "alter table child disable trigger audit",
    "alter table child enable always trigger audit",
    "alter table detached add primary key (day)",
    "alter table scratch set logged",
    "alter table detached set unlogged",
    "alter table scratch disable rule quiet",
    "alter table scratch add primary key (a)",
    "alter table measure detach partition measure_old",
    "alter table measure attach partition detached default",
    "create table measure_void partition of measure default",
    "alter table other.thing alter id set generated by default",
    "alter table other.thing alter id drop identity",
    "alter table other.thing alter id set increment 5",
    "alter table other.thing disable row level security",
    "create table made (id int)",
    "create table made as select * from person",
    "create table made (like person including all)",
    "create table made () inherits (person)",
    "create unlogged table made (id int)",
    "create table made of pair",
    "drop table child",
    "drop table person cascade",
    "drop table measure",
    "drop table other.thing",
    "create index on person (mood)",
    "create unique index made on person (name) where age > 3",
    "create index concurrently made on person (name, age)",
    "drop index person_age",
    "alter index person_age rename to made",
    "alter index person_age set (fillfactor = 60)",
    "alter index person_slug alter column 1 set statistics 100",
    "create view made as select 1 as a",
    "create or replace view people as select id, name, mood from person",
    "alter view people alter name set default 'x'",
    "alter view people set (security_barrier = true)",
    "alter view people rename to everyone",
    "drop view people",
    "create materialized view made as select 1 as a",
    "create unique index made on counted (n)",
    "drop materialized view counted",
    "alter materialized view counted rename to made",
    "create sequence made",
    "alter sequence ticket increment 7",
    "alter sequence ticket cache 20",
    "alter sequence ticket maxvalue 1000 cycle",
    "alter sequence ticket as int",
    "alter sequence ticket owned by child.id",
    "alter sequence ticket rename to made",
    "drop sequence ticket",
    "alter sequence ticket set unlogged",
    "create schema tenant",
    "create schema tenant create table made (id int)",
    "alter schema other rename to another",
    "drop schema other cascade",
    "drop schema public cascade",
    "create type made as enum ('a')",
    "create type made as (a int)",
    "create type made as range (subtype = int)",
    "alter type mood add value 'great'",
    "alter type mood rename value 'ok' to 'fine'",
    "alter type mood rename to feeling",
    "alter type pair add attribute c int cascade",
    "alter type pair drop attribute b cascade",
    "alter type pair rename attribute a to z",
    "drop type mood cascade",
    "drop type pair cascade",
    "create type mood_new as enum ('sad', 'ok', 'new'); alter table feeling alter mood type mood_new using"
    " mood::text::mood_new; alter type mood rename to mood_old; alter type mood_new rename to mood",
    "create domain made as int",
    "alter domain positive drop constraint positive_check",
    "alter domain positive add constraint small check (value < 1000)",
    "alter domain positive set default 5",
    "alter domain slugged set default 'x'",
    "drop domain positive cascade",
    "create function made() returns int language sql as 'select 1'",
    "create or replace function slug(t text) returns text language plpgsql immutable as $$begin return t; end$$",
    "alter function slug(text) stable",
    "alter function slug(text) cost 500",
    "alter function slug(text) set search_path = other",
    "alter function slug(text) security definer",
    "alter function audit() rename to made",
    "drop function slug(text) cascade",
    "drop function inner_lower(text)",
    "create procedure made() language sql as 'select 1'",
    "drop procedure nothing_much",
    "create aggregate made(int) (sfunc = int4pl, stype = int)",
    "drop aggregate total(int)",
    "create trigger made before update on person for each statement execute function audit()",
    "drop trigger audit on child",
    "alter trigger audit on child rename to made",
    "create rule made as on insert to scratch do also notify news",
    "drop rule quiet on scratch",
    "create policy made on person using (true)",
    "alter policy mine on other.thing using (id > 5)",
    "drop policy mine on other.thing",
    "create statistics made on id, name from person",
    "alter statistics person_statistics set statistics 10",
    "alter statistics person_statistics rename to made",
    "drop statistics person_statistics",
    'create collation made from "C"',
    "alter collation plain rename to made",
    "drop collation plain",
    "create text search configuration made (copy = simple)",
    "alter text search configuration words drop mapping for word",
    "drop text search configuration words",
    "create text search dictionary made (template = simple)",
    "alter text search dictionary word (stopwords)",
    "create operator #### (leftarg = int, rightarg = int, function = int4eq)",
    "alter operator ===(int, int) set (restrict = eqsel)",
    "drop operator ===(int, int)",
    "create conversion made for 'UTF8' to 'LATIN1' from utf8_to_iso8859_1",
    "create cast (text as mood) with inout",
    "create publication made",
    "create publication made for table person (id, name) where (id > 5)",
    "alter publication news set (publish = 'insert')",
    "alter publication news add table person",
    "drop publication news",
    "comment on table person is 'words'",
    "comment on table child is null",
    "comment on column person.name is 'words'",
    "comment on index person_age is 'words'",
    "comment on type mood is 'words'",
    "comment on function slug(text) is 'words'",
    "comment on schema other is 'words'",
    "comment on constraint person_pkey on person is 'words'",
    "comment on trigger audit on child is 'words'",
    "comment on policy mine on other.thing is 'words'",
    "comment on large object 4711 is 'words'",
    "comment on database @DB is 'words'",
    "grant select on person to public",
    "grant update (name) on person to public",
    "grant usage on sequence ticket to public",
    "grant all on schema other to public",
    "revoke execute on function slug(text) from public",
    "revoke usage on type mood from public",
    "grant select on large object 4711 to public",
    "grant select on all tables in schema public to public",
    "alter default privileges grant select on tables to public",
    "alter default privileges in schema other grant usage on sequences to public",
    "alter default privileges revoke execute on functions from public",
    "revoke all on database @DB from public",
    "alter database @DB set timezone to 'Asia/Tokyo'",
    "alter database @DB connection limit 7",
    "alter role @ROLE in database @DB set work_mem to '1MB'",
    "select lo_unlink(4711)",
    "select lo_from_bytea(4712, 'new')",
    "do $$ begin execute 'create table made (id int)'; end $$",
    "do $$ begin execute 'comment on table person is ''words'''; end $$",
    "begin; create table gone (id int); comment on table person is 'words'; drop table gone; commit",
]

BY_SUPERUSERS = [
    "create operator family made using hash",
    "alter operator family numbers using btree rename to made",
    "drop operator family numbers using btree",
    "reassign owned by dump_first to dump_second",
    "alter table scratch owner to dump_second",
    "alter schema other owner to dump_second",
    "alter function slug(text) owner to dump_second",
    "alter type mood owner to dump_second",
    "alter database @DB owner to dump_second",
    "alter large object 4711 owner to dump_second",
    "create event trigger made on ddl_command_start execute function on_ddl()",
    "alter event trigger watch disable",
    "alter event trigger watch enable always",
    "drop event trigger watch",
    "alter event trigger _dbtestcase_command disable; create table made (a int)",
    "set event_triggers = off; create table made (a int)",
    "set event_triggers = off; comment on table person is 'words'",
    "create extension pg_trgm",
    "create extension hstore schema other",
    "create foreign data wrapper made",
    "alter foreign data wrapper nowhere options (add a 'b')",
    "drop foreign data wrapper nowhere cascade",
    "create server made foreign data wrapper nowhere",
    "alter server far version '5'",
    "create user mapping for public server far",
    "alter user mapping for current_user server far options (set user 'y')",
    "drop user mapping for current_user server far",
    "alter foreign table abroad options (add a 'b')",
    "drop foreign table abroad",
    "create cast (mood as int) with inout",
    "drop cast (pair as text)",
    "create language made handler plpgsql_call_handler",
    "alter language plpgsql owner to dump_second",
    "create access method made type index handler bthandler",
    "create operator class made for type int using btree as operator 1 <, function 1 btint4cmp(int, int)",
    "create transform for int language sql (from sql with function prsd_lextype(internal))",
    "create text search template made (lexize = dsimple_lexize)",
    "create text search parser made (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end,"
    " lextypes = prsd_lextype)",
    "create publication made for all tables",
    "create publication made for tables in schema other",
    "comment on event trigger watch is 'words'",
    "comment on function lower(text) is 'words'",
    "grant select on pg_authid to public",
    "revoke select on pg_class from public",
    "update pg_class set reloptions = '{fillfactor=50}' where relname = 'person'",
    "update pg_proc set prosrc = 'select 2' where proname = 'nothing_much'",
    "insert into pg_description select 'person'::regclass, 'pg_class'::regclass, 0, 'words'",
    "alter table person set tablespace pg_default; comment on table person is 'words'",
    "set session_replication_role = replica; alter table person add note text",
    "set track_counts = off; comment on table person is 'words'; vacuum pg_description",
    "comment on table person is 'words'; vacuum full pg_description",
    "drop schema _dbtestcase cascade",
]
