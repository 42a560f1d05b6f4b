"""Statements are read in linear time, by the lexical rules of each dialect."""

import re
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

import dbtestcase
from dbtestcase.drivers.mysql import statements as mysql
from dbtestcase.drivers.sqlite import statements as sqlite
from dbtestcase.sandbox.lexer import FILL, MYSQL, POSTGRESQL, SQLITE, Lexer
from dbtestcase.sandbox.statements import Kind, classify

LEXERS = {"postgresql": POSTGRESQL, "sqlite": SQLITE, "mysql": MYSQL}


def read_mysql(text: str) -> Kind:
    mysql.committing_part(text)
    return mysql.read(text).kind


READERS: dict[str, Callable[[str], Kind]] = {
    "postgresql": lambda text: classify(text).kind,
    "sqlite": lambda text: (sqlite.control_word(text), sqlite.parse_pragma(text), sqlite.read(text).kind)[2],
    "mysql": read_mysql,
}

BEGINNINGS = st.sampled_from(
    (
        *("", "select ", "with x as (select 1) ", "set ", "set statement ", "copy t (", "explain analyze "),
        *(
            "create function f() begin atomic ",
            "pragma ",
            "attach ",
            "call ",
            "declare ",
            "reindex ",
            "prepare x from '",
        ),
        *(
            "insert into t values (",
            "select set_config(",
            "/* ",
            "-- ",
            "'",
            '"',
            "E'",
            "$a$",
            "[",
            "`",
            "#",
            "/*!50000 ",
        ),
    )
)
PIECES = st.sampled_from(
    (
        *(
            " ",
            "\n",
            "  -- note\n",
            "/* x */",
            "/*",
            "*/",
            "'",
            "''",
            '"',
            "`",
            "[",
            "]",
            "$",
            "$$",
            "$a$",
            "a$",
            "\\",
            "E'",
        ),
        *(
            "(",
            ")",
            "f(",
            "f (",
            ";",
            " ; ",
            ",",
            "a ",
            "a.",
            '"a".',
            "as ",
            "into ",
            " for ",
            "for no key ",
            "insert ",
        ),
        *(
            "( insert ",
            "begin ",
            "case ",
            "end ",
            "create ",
            "explain ",
            "set_config(",
            "@a := ",
            "to ",
            "#\n",
            "/*! ",
            "-- ",
        ),
        *("x'y''z' ", "'for update' ", "concurrently ", "call ", "prepare x from 'y' ", "= 1 ", "transaction "),
        *("-- ", "insert ", "E'"),
    )
)
SMALL, TIMES = 4_000, 8


class LinearTimeTest(unittest.TestCase):
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(BEGINNINGS, st.lists(PIECES, min_size=1, max_size=3), st.sampled_from(sorted(READERS)))
    def test_a_longer_text_takes_no_more_than_its_share(self, beginning: str, pieces: list[str], dialect: str) -> None:
        piece = "".join(pieces)
        number = SMALL // len(piece)
        short, long = (self._seconds(READERS[dialect], beginning + piece * (number * n)) for n in (1, TIMES))
        # a quadratic reader takes 64 times as long; what is shorter than a clock's tick or a switch says nothing
        self.assertLess(long, max(short, 0.002) * TIMES * 4, f"{dialect}: {beginning!r} and {piece!r} × {number}")

    def _seconds(self, read: Callable[[str], Kind], text: str) -> float:
        found = []
        for i in range(2):
            fresh = text + " " * i  # neither is in a cache
            began = time.thread_time()
            read(fresh)
            found.append(time.thread_time() - began)
        return min(found)

    def test_blanks_and_comments_before_the_first_word_are_stepped_over(self) -> None:
        for blank in ("\n" + " " * 10_000, "    -- a note\n" * 1_000, "/* a note */ " * 1_000, "\t\n" * 5_000):
            for dialect, read in READERS.items():
                with self.subTest(blank[:12], dialect=dialect):
                    self.assertIs(read(blank + "select 1"), Kind.READ)
                    self.assertIs(read(blank + "delete from t"), Kind.WRITE)
                    self.assertIs(read(blank + "commit"), Kind.TRANSACTION)
                    self.assertIs(read(blank), Kind.READ)


class MaskTest(unittest.TestCase):
    def shown(self, lexer: Lexer, text: str) -> str:
        masked = lexer.mask(text)
        self.assertEqual(len(masked), len(text))
        return masked.replace(FILL, "_")

    def test_each_dialect_quotes_and_comments_its_own_way(self) -> None:
        for text, *masked in (
            ("a 'b;' \"c;\" d", "a '__' \"__\" d", "a '__' \"__\" d", "a '__' '__' d"),
            ("a `;` b", "a `;` b", "a `_` b", "a `_` b"),
            ("a [;] b", "a [;] b", "a [_] b", "a [;] b"),
            ("$$;$$ b", "'___' b", "$$;$$ b", "$$;$$ b"),
            ("$x$;$y$;$x$b", "'_________'b", "$x$;$y$;$x$b", "$x$;$y$;$x$b"),
            ("a$$;$$ b$$", "a$$;'____'", "a$$;$$ b$$", "a$$;$$ b$$"),
            ("/*/*;*/;*/b", "          b", "       ;*/b", "       ;  b"),
            ("--a\rb", "   \rb", "     ", "--a\rb"),
            ("-- a\nb", "    \nb", "    \nb", "    \nb"),
            ("#a;\nb", "#a;\nb", "#a;\nb", "   \nb"),
            (r"'\';'", r"'_';'", r"'_';'", r"'___'"),
            (r"E'\';'", r"'____'", r"E'_';'", r"E'___'"),
            (r"aE'\';'", r"aE'_';'", r"aE'_';'", r"aE'___'"),
            ("E'a'\n'\\';'", "'________'", "E'_'\n'_';'", "E'_'\n'___'"),
            ("/*!50000 a */", "             ", "             ", "         a   "),
            ("'a", "'_", "'_", "'_"),
            ("/* a", "    ", "    ", "    "),
        ):
            for lexer, expected in zip((POSTGRESQL, SQLITE, MYSQL), masked, strict=True):
                with self.subTest(text, expected=expected):
                    self.assertEqual(self.shown(lexer, text), expected)

    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(st.text(alphabet="ae;' \n-/*$E\\\"`[]#!(é\N{EURO SIGN}", max_size=30), st.sampled_from(sorted(LEXERS)))
    def test_a_masked_text_is_as_long_and_stays_the_same(self, text: str, dialect: str) -> None:
        lexer = LEXERS[dialect]
        masked = lexer.mask(text)
        self.assertEqual(len(masked), len(text))
        if dialect != "mysql":  # where the marks of /*! … */ are gone
            self.assertEqual(lexer.mask(masked), masked)


class DialectTest(unittest.TestCase):
    def test_control_of_transactions_is_found_by_the_rules_of_the_dialect(self) -> None:
        for text in ("/*!50000 COMMIT */", "/*M!100100 commit */", "# x\ncommit", "select 1 /*!; commit */"):
            with self.subTest(text):
                self.assertIs(mysql.read(text).kind, Kind.TRANSACTION)
        for text in ("select $a$; commit; select $a$", "select '\\'; commit; --'", "/* /* */ commit"):
            with self.subTest(text):
                self.assertIs(sqlite.read(text).kind, Kind.TRANSACTION)
        for text in ("select [;commit]", "select `;commit`", "select 'for update'", "/* x */ select 1 /* ;commit"):
            with self.subTest(text):
                self.assertIs(sqlite.read(text).kind, Kind.READ)
        for text in ("select '\\';commit'", 'select ";commit"', "select `for update`", "select 1 # ; commit"):
            with self.subTest(text):
                self.assertIs(mysql.read(text).kind, Kind.READ)
                self.assertEqual(mysql.committing_part(text), "")

    def test_what_the_server_may_read_in_two_ways_is_refused_if_one_of_them_commits(self) -> None:
        for text in ("select '\\'; drop table t; -- '", "select 1 /*!99999 ' */; drop table t; /*!99999 ' */"):
            with self.subTest(text):
                self.assertEqual(mysql.committing_part(text), "drop table t")

    def test_what_is_prepared_is_looked_into(self) -> None:
        for text in ("prepare p from 'create table t (a int)'", "/* x */ EXECUTE IMMEDIATE 'create table t (a int)'"):
            with self.subTest(text):
                self.assertEqual(mysql.committing_part(text), "create table t (a int)")
        self.assertEqual(mysql.committing_part("select 'prepare p from ''drop table t'''"), "")

    def test_names_of_savepoints_are_quoted_by_the_rules_of_the_dialect(self) -> None:
        for read in (sqlite.read, mysql.read):
            self.assertEqual(read("savepoint `x y`").label, "x y")
        self.assertEqual(sqlite.read("savepoint [x y]").label, "x y")


class PatternsTest(unittest.TestCase):
    def test_no_group_is_repeated_possessively(self) -> None:
        """Python before 3.11.5 (Debian 12 has 3.11.2) matches such patterns wrongly: a COMMIT was read as a read."""
        package = Path(dbtestcase.__file__).parent
        found = [
            f"{path.relative_to(package)}:{number}"
            for path in package.rglob("*.py")
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if re.search(r"\)(?:\*|\+|\?)\+[^+]", line)
        ]
        self.assertEqual(found, [])


class SQLiteWordsTest(unittest.TestCase):
    def test_pragmas_are_taken_apart(self) -> None:
        for text, name, value in (
            ("PRAGMA foreign_keys=ON", "foreign_keys", "ON"),
            ("-- x\npragma main . journal_mode = 'wal' ; -- y", "journal_mode", "wal"),
            ('pragma "main".table_info("x;y")', "table_info", "x;y"),
            ("pragma foreign_keys", "foreign_keys", None),
        ):
            with self.subTest(text):
                pragma = sqlite.parse_pragma(text)
                assert pragma is not None
                self.assertEqual((pragma.name, pragma.value), (name, value))
        self.assertIsNone(sqlite.parse_pragma("pragma x; select 1"))

    def test_attached_files_are_named(self) -> None:
        for text, parameters, found in (
            ("attach 'a b' as x", (), ("a b", "x")),
            ("attach 'it''s :f' as x", (), ("it's :f", "x")),
            ("attach ':memory:' as x", {"memory:": "no"}, (":memory:", "x")),
            ('/* x */ ATTACH DATABASE ? AS "Y" ;', (), ("?", "y")),
            ("attach ? as y", ("f",), ("f", "y")),
            ("attach ?2 as y", ["e", b"f"], ("f", "y")),
            ("attach :f as [q]", (), (":f", "q")),
            ("attach @f as q", {"f": "g"}, ("g", "q")),
        ):
            with self.subTest(text):
                self.assertEqual(sqlite.parse_attach(text, parameters), found)

    def test_attached_files_are_found_beside_a_database_in_memory(self) -> None:
        self.assertEqual(sqlite.attach_as_file("/a b", "x"), ('ATTACH DATABASE ? AS "x"', ("file:/a%20b?vfs=unix",)))
        for text in ("attach ? as x", "attach :memory: as x", "attach ':memory:' as x", "attach '' as x"):
            attach = sqlite.parse_attach(text)
            assert attach is not None
            self.assertIsNone(sqlite.attach_as_file(*attach))

    def test_or_rollback_is_replaced_where_it_stands(self) -> None:
        text = "/* or rollback */ insert or rollback into t values ('or rollback')"
        self.assertEqual(sqlite.read(text).rewrite, "/* or rollback */ insert or ABORT into t values ('or rollback')")


if __name__ == "__main__":
    unittest.main()
