"""What a string of SQL would do to a transaction: hostile strings, and strings made at random whose truth is known."""

import unittest

from hypothesis import given, settings
from hypothesis import strategies as st

from dbtestcase.sandbox.splitting import split
from dbtestcase.sandbox.statements import Kind, Statement, classify

ESCAPES = [
    "COMMIT",
    "commit;",
    "  \n\tCommit ;;\n",
    "-- nightly\nCOMMIT",
    "--\nROLLBACK",
    "/* a */ COMMIT",
    "/* a /* nested */ still a comment */ COMMIT",
    "commit--",
    "commit/**/work",
    "commit and chain",
    "rollback and chain",
    "rollback work",
    "begin",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "start transaction read only",
    "end",
    "abort",
    "PREPARE TRANSACTION 'x'",
    "/* p */ prepare /* q */ transaction 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
    "select 1; commit",
    "select 1;;;commit",
    "begin; select 1; commit",
    "insert into t values (1); commit",
    "insert into t values ('a;b'); commit",
    "select $$ ; $$; commit",
    "select $a$ ; commit $b$ ; $a$; commit",
    "select 1 where a = $tag$;$tag$;commit",
    "select '\\'; commit",
    "select E'\\\\'; commit",
    "select 'it''s; x'; commit",
    'select "a"";b"; commit',
    "select U&'x'; COMMIT",
    "select B'1';commit",
    "select a$b$c; commit; select a$b$",
    "select 1;\N{NO-BREAK SPACE}commit",
    "--x\rCOMMIT",
    "select E'a'\n'\\'' ; commit",
    "select x$$ ; commit; select $$",
    "savepoint a; select 1",
    "select 1; release a",
    "rollback to",
    "create table t (begin int, e int); commit",
    "create table begin(); commit",
    "create view v as select 1 as begin; commit",
    "create table trigger (begin int); commit",
    "create trigger begin after insert on t execute function f(); commit",
    "create function begin() returns int language sql return 1; commit",
    "create function s.begin() returns int language sql return 1; commit",
    "create function f(begin int) returns int language sql return 1; commit",
    "create function f() returns begin language sql return null; commit",
    "create function f() returns int language sql begin atomic select case when true then 1 else 2 end; end; commit",
    "create procedure p() language plpgsql as $$ begin commit; end $$; commit",
]

HARMLESS = {
    Kind.READ: [
        "",
        " ;; ",
        "-- commit",
        "/* commit */",
        "/* unterminated commit",
        "select 1 -- ; commit",
        "select 1 /* ; commit */",
        "select ';commit;'; select 1",
        "select $$ ;commit; $$",
        "select E'\\'; commit; --'",
        'select "a;commit"',
        "(((select 1)))",
        "values (1)",
        "table t",
        "show x",
        "with x as (select 1) select * from x",
        'with "update" as (select 1) select 1',
        "with t as (select replace(a, 'a', 'b') from x) select * from t",
        "with t as (select 1 as insert) select * from t",
        "with t as (select 1), u as (select t.update from t) select (delete) from u",
        "select 'ready for update'",
        'select "for update" from t',
        "select 1 as into",
        "select t.into from t",
        "select 1 -- for update",
        "explain (analyze off) insert into t values (1)",
        "explain (costs, format json) update t set a = 1",
        "copy t (update, delete) to stdout",
        "select 'into'",
        "explain insert into t values (1)",
        "explain (analyze, buffers) select 1",
        "declare c cursor for select 1",
        "fetch 1 from c",
        "copy t to stdout",
        "copy t (a, b) to stdout with (format binary)",
        "copy (select a from t) to stdout",
        "listen x",
        "notify x",
    ],
    Kind.LOCK: [
        "select * from t for update",
        "select * from t for no key update",
        "select * from t for share of t nowait",
        "with x as (select * from t for update) select * from x",
        "lock table t in exclusive mode",
    ],
    Kind.WRITE: [
        "insert into t values (1)",
        "/* x */ insert into t values (';')",
        "/* a /* b */ */ update t set a = 1",
        "merge into t using s on true when matched then delete",
        "with x as (delete from t returning *) select * from x",
        "with x as (select 1) insert into t select * from x",
        "with x as not materialized (update t set a = 1 returning 1) select * from x",
        "with recursive x (n) as (select 1) cycle n set c using p delete from t",
        "with x as (with y as (select 1) insert into t select * from y returning 1) select * from x",
        "explain analyze verbose update t set a = 1",
        "explain (verbose, analyse true) with x as (delete from t) select 1",
        "with x as (select * from t for update) update t set a = 1",
        "select 1 into t",
        "select 1; insert into t values (1)",
        "explain analyze insert into t values (1)",
        "explain (analyze) delete from t",
        "copy t from stdin",
        "copy (insert into t values (1) returning a) to stdout",
        "truncate t",
        "call p()",
        "do $$ begin commit; end $$",
        "execute p",
    ],
    Kind.SCHEMA: [
        "create table t (a int)",
        "create function f() returns int language sql begin atomic select 1; select 2; end",
        "create function f() returns int language sql begin atomic select case when true then 1 end; select 2; end",
        "create or replace function f() returns int language sql begin atomic; end",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO b VALUES (1); DELETE FROM c; END",
        "CREATE PROCEDURE p() BEGIN IF a THEN COMMIT; END IF; CASE a WHEN 1 THEN SELECT 1; END CASE; END",
        "create procedure p() language plpgsql as $$ begin commit; end $$",
        "create rule r as on insert to t do also (insert into u values (1); insert into u values (2))",
        "vacuum",
        "create database x",
        "grant all on t to x",
        "comment on table t is 'commit'",
        "gibberish",
    ],
    Kind.CHARACTERISTICS: [
        "set transaction isolation level serializable",
    ],
    Kind.CONSTRAINTS: ["set constraints all deferred", "SET CONSTRAINTS fk IMMEDIATE"],
}


class KindTest(unittest.TestCase):
    def test_transaction_control_is_found_wherever_it_hides(self) -> None:
        for text in ESCAPES:
            with self.subTest(text):
                self.assertIs(classify(text).kind, Kind.TRANSACTION)

    def test_everything_else_is_told_apart(self) -> None:
        for kind, texts in HARMLESS.items():
            for text in texts:
                with self.subTest(text):
                    self.assertIs(classify(text).kind, kind)

    def test_the_error_can_name_the_statement_that_was_hidden(self) -> None:
        self.assertEqual(classify("insert into t values (1); /* x */ Commit work; select 1").label, "Commit work")

    def test_only_a_single_statement_of_data_is_told_by_its_row_count(self) -> None:
        self.assertTrue(classify("update t set a = 1").counts)
        for text in (
            "update t set a = 1; select 1",
            "with x as (delete from t returning 1) select * from x",
            "call p()",
            "/* /* */ insert */ select f()",
        ):
            with self.subTest(text):
                self.assertFalse(classify(text).counts)


class DetailTest(unittest.TestCase):
    def test_names_of_savepoints_are_folded_as_the_server_folds_them(self) -> None:
        for text, label in {
            "SAVEPOINT Abc": "abc",
            "savepoint a -- c": "a",
            "SAVEPOINT /* x */ a;": "a",
            'SAVEPOINT "Abc"': "Abc",
            'SAVEPOINT "x""y z"': 'x"y z',
            "savepoint ünï": "ünï",
        }.items():
            with self.subTest(text):
                statement = classify(text)
                self.assertEqual((statement.kind, statement.label), (Kind.SAVEPOINT, label))
        for text in ("release a", "RELEASE SAVEPOINT A", 'release "a"'):
            self.assertEqual((classify(text).kind, classify(text).label), (Kind.RELEASE, "a"))
        for text in ("rollback to a", "ROLLBACK WORK TO SAVEPOINT A", "rollback transaction to a;"):
            self.assertEqual((classify(text).kind, classify(text).label), (Kind.ROLLBACK_TO, "a"))

    def test_settings_are_named(self) -> None:
        for text, settings_, local in (
            ("set a.b = ';commit;'", ("a.b",), False),
            ("SET LOCAL Search_Path TO a, b", ("search_path",), True),
            ("set session x to 1", ("x",), False),
            ("set time zone 'UTC'", ("timezone",), False),
            ("reset all", ("*",), False),
            ("reset x", ("x",), False),
            ("set role x", ("role",), False),
            ("set session authorization x", ("session_authorization", "role"), False),
            ("select set_config('A.b', 'c', true)", ("a.b",), True),
            ("select\tset_config ( 'x.y' , 'z' , 'on' )", ("x.y",), True),
            ("select pg_catalog.set_config('a.b', 'c', false)", ("a.b",), False),
            ("select set_config(%s, %s, false)", ("?",), False),
            ("select 1; set local a.b = 1", ("a.b",), True),
        ):
            with self.subTest(text):
                statement = classify(text)
                self.assertEqual((statement.settings, statement.local), (settings_, local))

    def test_the_functions_that_a_read_calls_are_named(self) -> None:
        self.assertLessEqual({"f", "G h"}, classify('select s.f(1), "G h" (2) from t where x in (1)').calls)
        self.assertEqual(classify("select ' f( ' -- g(\n").calls, frozenset())
        for text, name in {"call p(1)": "p", 'CALL s . "P x" ()': "P x", "call a.b.P(%s)": "p", "call p": None}.items():
            self.assertEqual(classify(text).calls, {name} - {None}, text)

    def test_cursors_are_named(self) -> None:
        self.assertEqual(classify("DECLARE C CURSOR FOR SELECT 1").cursor, "c")
        self.assertEqual(classify('declare "C x" binary cursor with hold for select 1').cursor, "C x")

    def test_concurrently_is_left_out(self) -> None:
        for text, rewritten in {
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)": "CREATE UNIQUE INDEX IF NOT EXISTS i ON t (a)",
            "drop index concurrently i": "drop index i",
            "reindex (verbose) table concurrently t": "reindex (verbose) table t",
            "/* x */ create index concurrently i on t (a)": "create index i on t (a)",
            "drop index concurrently i; select 1": "drop index i; select 1",
        }.items():
            with self.subTest(text):
                self.assertEqual(classify(text).rewrite, rewritten)
        self.assertIsNone(classify('create index "concurrently" on t (a)').rewrite)

    def test_a_string_is_split_into_its_statements(self) -> None:
        self.assertEqual(
            list(split("/* x */ select ';'; ;\n insert into t values ($$;$$) -- ;\n;")),
            ["select ';'", "insert into t values ($$;$$)"],
        )


QUIET = st.text(alphabet="abc;' \n-/*$E\\\"é", max_size=12)
"""Characters that are dangerous only outside of quotes."""


def comment(text: str) -> str:
    return "/*" + text.replace("*/", "").replace("/*", "").replace("*", "").replace("/", "") + "*/"


PIECES = st.one_of(
    QUIET.map(lambda s: "'" + s.replace("'", "''").replace("\\", "") + "'"),
    QUIET.map(lambda s: "E'" + s.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    QUIET.map(lambda s: '"' + s.replace('"', '""') + '"'),
    QUIET.map(lambda s: "$q$" + s.replace("$", "") + "$q$"),
    QUIET.map(comment),
    QUIET.map(lambda s: comment(s)[:-2] + comment(s) + "*/"),
    QUIET.map(lambda s: "--" + s.replace("\n", "") + "\n"),
    st.sampled_from(["x", "1", ",", "(1)", "x.y", "+"]),
)


class RandomTest(unittest.TestCase):
    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(st.lists(PIECES, max_size=8), st.lists(PIECES, max_size=8), st.booleans())
    def test_a_commit_between_any_pieces_is_found_and_none_is_imagined(
        self, before: list[str], after: list[str], ends: bool
    ) -> None:
        text = f"select {' '.join(before)} {'; commit ;' if ends else ''} select {' '.join(after)}"
        self.assertIs(classify(text).kind, Kind.TRANSACTION if ends else Kind.READ)

    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(st.text(alphabet="abeginc omtd;'\"$/*-!\\E(),\n`.", max_size=40))
    def test_nothing_makes_it_fail(self, text: str) -> None:
        self.assertIsInstance(classify(text), Statement)
