"""Connections and cursors of psycopg2 are, inside, what a connection of its own is: each case is run on both."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import unittest
import weakref
from collections import deque
from typing import Any
from unittest import mock

from dbtestcase.errors import SandboxClosed, SandboxEscape, SandboxTimeout
from tests.support.sandboxes import SandboxTestCase
from tests.support.scratch import connect
from tests.support.servers import postgresql_url


def one(connection: Any, sql: str) -> Any:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def outcome(work: Any, *args: Any, **keywords: Any) -> Any:
    """What it gives, or the error that it raises."""
    try:
        return work(*args, **keywords)
    except Exception as error:
        return type(error).__name__, str(error).splitlines()[0]


class Cases:
    """Each uses a connection and says what it saw."""

    def savepoints(self, c: Any) -> Any:
        cursor, seen = c.cursor(), []
        for command in ("SAVEPOINT one", "ROLLBACK TO SAVEPOINT one", "RELEASE SAVEPOINT one"):
            cursor.execute("SELECT 1")
            cursor.execute(command)
            seen += [cursor.rowcount, cursor.description, outcome(cursor.fetchall)]
        return seen

    def levels(self, c: Any) -> Any:
        seen = [outcome(c.set_isolation_level, level) for level in (-1, 5)]
        for level in ("serializable", 2, "READ COMMITTED", None, 0, 9, "nonsense"):
            seen.append(outcome(setattr, c, "isolation_level", level))
            seen += [c.isolation_level, c.autocommit, one(c, "SHOW transaction_isolation")]
            c.rollback()
        return seen

    def modes(self, c: Any) -> Any:
        seen = []
        for keywords in (
            {"readonly": True, "deferrable": True},
            {"readonly": False},
            {"readonly": "default", "deferrable": False},
            {"deferrable": "DEFAULT", "isolation_level": "serializable"},
            {"readonly": "nonsense"},
            {"autocommit": True, "readonly": True},
            {"deferrable": True},
            {"autocommit": False, "readonly": True, "isolation_level": 3},
            {"autocommit": True},
            {"readonly": True, "isolation_level": 3},
            {"autocommit": False},
            {"isolation_level": 7},
        ):
            seen.append(outcome(c.set_session, **keywords))
            seen += [c.isolation_level, c.readonly, c.deferrable, c.autocommit]
            names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
            seen += [one(c, f"SHOW {prefix}{name}") for name in names for prefix in ("", "default_")]
            c.rollback()
        return seen

    def inside_a_transaction(self, c: Any) -> Any:
        one(c, "SELECT 1")
        seen = [outcome(c.set_session, autocommit=True)]
        seen += [outcome(setattr, c, n, True) for n in ("autocommit", "readonly", "deferrable")]
        c.set_isolation_level(3)  # rolls back
        return [*seen, c.status, c.isolation_level]

    def closed(self, c: Any) -> Any:
        cursor = c.cursor()
        c.close()
        works = (c.cursor, c.set_session, c.cancel, c.commit, c.reset, lambda: setattr(c, "autocommit", True))
        return [*(outcome(work) for work in works), cursor.closed, c.closed, c.info.transaction_status]

    def cursors_of_a_closed_connection(self, c: Any) -> Any:
        """Rows that are there already end with their connection, too."""
        from psycopg2 import extras

        cursors = [c.cursor(), c.cursor(cursor_factory=extras.DictCursor), c.cursor("named")]
        for cursor in cursors:
            cursor.execute("SELECT generate_series(1, 5)")
            cursor.fetchone()
        forgotten = [c.cursor() for _ in range(60)]
        del forgotten
        c.close()
        seen = []
        for cursor in cursors:
            seen += [
                outcome(getattr(cursor, use)) for use in ("fetchone", "fetchmany", "fetchall", "__next__", "nextset")
            ]
            seen += [outcome(cursor.execute, "SELECT 1"), outcome(cursor.scroll, 1), cursor.closed, cursor.rowcount]
            seen += [outcome(cursor.mogrify, "SELECT 1"), outcome(cursor.close)]
        return seen

    def uses_of_a_cursor(self, c: Any) -> Any:
        from psycopg2 import extensions, extras, sql

        cursor = c.cursor()
        seen = [cursor.connection is c, isinstance(cursor, extensions.cursor), cursor.__class__ is extensions.cursor]
        seen += [weakref.ref(cursor)() is cursor, outcome(copy.copy, cursor)[0], outcome(pickle.dumps, cursor)[0]]
        extensions.register_type(extensions.new_type((23,), "ITS", lambda _, given: given.connection is c), cursor)
        cursor.execute("SELECT 1")
        seen.append(cursor.fetchone())
        for name in ("connection", "rowcount", "description", "mine", "name", "query", "closed"):
            seen.append(outcome(setattr, cursor, name, None)[0] if outcome(setattr, cursor, name, None) else name)
        cursor.execute("CREATE TEMP TABLE used (x int, y text)")
        cursor.executemany("INSERT INTO used VALUES (%s, %s)", [(1, "a"), (2, "b")])
        seen += [cursor.rowcount, cursor.query, cursor.statusmessage, cursor.lastrowid, cursor.pgresult_ptr is None]
        extras.execute_values(cursor, "INSERT INTO used VALUES %s", [(3, "c"), (4, "d")])
        extras.execute_batch(cursor, "INSERT INTO used VALUES (%s, %s)", [(5, "e"), (6, "f")])
        cursor.copy_from(io.StringIO("7\tg\n"), "used")
        cursor.copy_expert("COPY used FROM STDIN", io.StringIO("8\th\n"))
        cursor.copy_to(out := io.StringIO(), "used")
        seen += [out.getvalue(), cursor.rowcount]
        query = sql.SQL("SELECT {}, {} FROM used").format(sql.Identifier("x"), sql.Literal("it's"))
        seen += [query.as_string(cursor), query.as_string(c), extensions.quote_ident('a"b', cursor)]
        cursor.execute(query + sql.SQL(" ORDER BY x"))
        seen += [
            next(cursor),
            cursor.rownumber,
            cursor.fetchmany(2),
            cursor.arraysize,
            [d.name for d in cursor.description],
        ]
        cursor.scroll(-1)
        cursor.arraysize = 3
        seen += [
            cursor.fetchmany(),
            *cursor,
            outcome(next, cursor, None),
            cursor.fetchone(),
            outcome(cursor.scroll, 99),
        ]
        cursor.execute(b"SELECT x FROM used WHERE y = %(y)s", {"y": "b"})
        seen += [
            cursor.fetchall(),
            cursor.mogrify("%s", ("it's",)),
            outcome(cursor.execute, ""),
            outcome(cursor.fetchone),
        ]
        c.rollback()
        cursor.callproc("abs", [-3])
        seen.append(cursor.fetchall())
        with cursor as same, c.cursor(cursor_factory=type(cursor)) as another:
            another.execute("SELECT 2")
            seen += [same is cursor, another.fetchone(), another.connection is c]
        for use in ("fetchone", "close", "__next__"):
            seen.append(outcome(getattr(cursor, use)))
        return [*seen, cursor.closed, outcome(cursor.execute, "SELECT 1"), outcome(cursor.mogrify, "SELECT 1")]

    def types_of_cursors_and_connections(self, c: Any) -> Any:
        """The cursor's own go before the connection's, whichever were registered first."""
        from psycopg2 import extensions, extras

        def kind(name: str, oid: int = 25) -> Any:
            return extensions.new_type((oid,), name, lambda value, _: (name, value))

        early, own = c.cursor(), c.cursor()
        extensions.register_type(kind("CURSOR"), own)
        extensions.register_type(kind("CONNECTION"), c)
        extensions.register_type(kind("AGAIN"), c)
        extensions.register_type(kind("NAME", 19), c)
        late = c.cursor()
        seen: list[Any] = []
        for cursor in (early, own, late, c.cursor(cursor_factory=extras.RealDictCursor), c.cursor("named")):
            cursor.execute("SELECT 'x'::text AS t, 'y'::name AS n, 1 AS i")
            seen += [
                cursor.fetchall(),
                cursor.cast(25, "z"),
                cursor.cast(23, "4"),
                cursor.cast(0, "5"),
                cursor.cast(19, None),
            ]
        extras.register_uuid(conn_or_curs=early)
        extras.register_default_json(early, loads=lambda text: ("json", text))
        early.execute("SELECT '1c1a1a1e-0000-4000-8000-000000000000'::uuid, '[1]'::json")
        seen += [
            early.fetchone(),
            19 in c.string_types,
            114 in c.string_types,
            sorted(early.string_types),
            c.binary_types,
        ]
        return seen

    def states(self, c: Any) -> Any:
        seen = [c.info.transaction_status, c.status]
        one(c, "SELECT 1")
        seen += [c.info.transaction_status, c.status]
        outcome(one, c, "SELECT 1 / 0")
        seen += [c.info.transaction_status, c.get_transaction_status()]
        c.rollback()
        c.autocommit = True
        one(c, "SELECT 1")
        return [*seen, c.info.transaction_status, c.status]

    def told_settings(self, c: Any) -> Any:
        one(c, "SELECT set_config('timezone', 'Asia/Tokyo', false)")
        return c.info.parameter_status("TimeZone"), c.get_parameter_status("nonsense")

    def blocks_in_autocommit(self, c: Any) -> Any:
        c.autocommit = True
        one(c, "CREATE TEMP TABLE log (x int); SELECT 1")
        seen = []
        with contextlib.suppress(ZeroDivisionError), c:
            one(c, "INSERT INTO log VALUES (1) RETURNING x")
            seen += [c.info.transaction_status, c.autocommit]
            raise ZeroDivisionError
        seen += [one(c, "SELECT count(*) FROM log"), c.info.transaction_status]
        with c:
            one(c, "INSERT INTO log VALUES (1) RETURNING x")
            seen.append(outcome(c.__enter__))
        return [*seen, one(c, "SELECT count(*) FROM log"), c.info.transaction_status]

    def block_after_an_error(self, c: Any) -> Any:
        c.autocommit = True
        seen = [outcome(one, c, "SELECT nothing")]
        with c:
            seen.append(outcome(one, c, "INSERT INTO log VALUES (1) RETURNING x"))
        seen.append(outcome(one, c, "SELECT nothing"))
        c.autocommit = False
        seen.append(outcome(one, c, "INSERT INTO log VALUES (1) RETURNING x"))
        return [*seen, outcome(one, c, "SELECT count(*) FROM log")]

    def reset(self, c: Any) -> Any:
        c.set_session("serializable", True, True, True)
        one(c, "SELECT set_config('timezone', 'Asia/Tokyo', false)")
        c.reset()
        return c.autocommit, c.isolation_level, c.readonly, c.deferrable, one(c, "SHOW timezone") == "Asia/Tokyo"

    def notices(self, c: Any) -> Any:
        say = "DO $$ BEGIN RAISE NOTICE 'said'; END $$; SELECT 1"
        one(c, say)
        seen = list(c.notices)
        c.notices = deque(maxlen=1)
        one(c, say), one(c, say)
        return seen, list(c.notices)

    def named_cursors(self, c: Any) -> Any:
        seen = [outcome(lambda: c.cursor(withhold=True)), outcome(lambda: c.cursor(scrollable=False))]
        for size in (2, 30):
            with contextlib.closing(c.cursor("named")) as cursor:
                cursor.itersize = size
                cursor.execute("SELECT generate_series(1, 5)")
                seen += [(row, cursor.rownumber) for row in cursor]
                seen += [next(cursor, "no more"), outcome(cursor.execute, "SELECT 1")]
        one(c, "DECLARE stolen CURSOR FOR SELECT generate_series(1, 7); SELECT 1")
        with contextlib.closing(c.cursor("stolen")) as cursor:
            seen += [cursor.fetchone(), cursor.fetchmany(3), cursor.fetchall()]
        seen.append(one(c, "SELECT count(*) FROM pg_cursors WHERE name = 'stolen'"))
        c.cursor("never").close()
        cursor = c.cursor("old")
        cursor.execute("SELECT 1")
        c.commit()
        seen += [outcome(cursor.fetchone), outcome(cursor.close)]
        c.autocommit = True
        cursor = c.cursor("refused")
        seen += [outcome(cursor.execute, "SELECT 1"), outcome(cursor.close), cursor.closed]
        c.cursor().execute("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
        seen += [outcome(c.cursor("never").close), outcome(c.cursor("held").close)]
        return [*seen, one(c, "SELECT count(*) FROM pg_cursors WHERE name = 'held'")]

    def named_cursors_that_are_executed_too_late(self, c: Any) -> Any:
        seen = []
        for end in (c.commit, c.rollback):
            cursor = c.cursor("late")
            one(c, "SELECT 1")
            end()
            seen += [outcome(cursor.execute, "SELECT 1"), outcome(cursor.fetchone), outcome(cursor.close), c.status]
        held = c.cursor("held", withhold=True)
        one(c, "SELECT 1")
        c.commit()
        seen += [outcome(held.execute, "SELECT 1"), outcome(held.fetchone), outcome(held.close)]
        twice = c.cursor("twice")
        seen.append(outcome(twice.execute, "SELECT nothing"))
        c.rollback()
        seen.append(outcome(twice.execute, "SELECT 1"))
        c.rollback()
        c.autocommit = True
        with c:
            seen.append(outcome(c.cursor("block").execute, "SELECT 1"))
        return seen

    def status_after_cursors(self, c: Any) -> Any:
        """A named cursor begins a transaction where it fetches, one ``WITH HOLD`` does not."""
        seen: list[Any] = []

        def see(work: Any, *args: Any) -> None:
            seen.append((outcome(work, *args), c.get_transaction_status(), c.status))

        for use in ("fetchone", "fetchmany", "fetchall", "__next__", "close"):
            see(getattr(c.cursor("nowhere"), use))
            see(c.cursor("nowhere").close)
            see(c.rollback)
        see(c.cursor("nowhere").scroll, 1)
        see(c.rollback)
        held = c.cursor("held", withhold=True)
        see(held.execute, "SELECT generate_series(1, 5)")
        for work in (held.fetchone, c.commit, held.fetchone, c.commit, held.close):
            see(work)
        c.cursor().execute("DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 5)")
        for work in (c.commit, c.cursor("held").fetchone, c.commit, c.cursor("held").close, c.cursor("held").fetchone):
            see(work)
        c.rollback()
        idle = c.cursor("idle")
        c.commit()  # ends nothing
        see(idle.fetchone)
        return seen

    def casts(self, c: Any) -> Any:
        from psycopg2 import extensions

        cursor = c.cursor()
        extensions.register_type(extensions.new_type((705,), "TWICE", lambda value, _: value * 2), c)
        seen = [cursor.cast(705, "x")]
        extensions.register_type(extensions.new_type((705,), "THRICE", lambda value, _: value * 3), cursor)
        return [*seen, cursor.cast(705, "x"), c.cursor().cast(705, "x")]

    def classes_of_cursors(self, c: Any) -> Any:
        from psycopg2 import extensions, extras

        class Mine(extras.DictCursor):
            pass

        cursor = c.cursor(cursor_factory=Mine)
        cursor.execute("SELECT 1 AS x")
        kinds = (Mine, extras.DictCursor, extensions.cursor, extras.RealDictCursor)
        seen = [isinstance(cursor, kind) for kind in kinds]
        return seen, cursor.fetchone()["x"], isinstance(c.info, extensions.ConnectionInfo)

    def types_called_by_hand(self, c: Any) -> Any:
        from psycopg2 import extensions

        seen = []
        with c.cursor() as plain, c.cursor("named") as named:
            for cursor in (plain, named):
                for name, caster in vars(extensions).items():
                    if isinstance(caster, type(extensions.UNICODE)):
                        for text in ("2020-01-01 10:00:00+02", "12", "{1,2}", "\\x00", None):
                            found = outcome(caster, text, cursor)
                            seen.append((name, bytes(found) if isinstance(found, memoryview) else found))
                seen += [cursor.rowcount, cursor.arraysize, cursor.itersize, cursor.description, cursor.name]
            plain.tzinfo_factory = None
            seen.append(extensions.PYDATETIMETZ("2020-01-01 10:00:00+02", plain))
        return seen


class Psycopg2ConnectionsTest(SandboxTestCase):
    driver = "psycopg2"

    def test_as_on_a_connection_of_its_own(self) -> None:
        import psycopg2

        server = postgresql_url()
        cases = Cases()
        for name in (each for each in dir(cases) if not each.startswith("_")):
            with self.subTest(name):
                real = psycopg2.connect(host=server.query["host"], user=server.username, dbname=server.database)
                virtual = self.engine.raw_connection()
                with contextlib.closing(real), contextlib.closing(virtual):
                    expected = getattr(cases, name)(real)
                    self.assertEqual(getattr(cases, name)(virtual.driver_connection), expected)
                    virtual.invalidate()
                self.sandbox.rollback_to_mark("the next case")

    def test_a_connection_quotes_by_its_own_settings(self) -> None:
        from psycopg2 import sql

        proxied = [self.engine.raw_connection() for _ in range(2)]  # who are given back when they are collected
        a, b = (each.driver_connection for each in proxied)
        with contextlib.closing(a.cursor()) as odd, contextlib.closing(b.cursor()) as usual:
            odd.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
            for cursor, other in ((odd, usual), (usual, odd), (odd, usual)):
                other.execute("SELECT 1")
                text = cursor.mogrify("SELECT %s", ("a\\nb",))
                quoted = sql.SQL("SELECT {}").format(sql.Literal("a\\nb")).as_string(cursor.connection)
                for query in (text, quoted):
                    other.execute("SELECT 1")
                    cursor.execute(query)
                    self.assertEqual(cursor.fetchone(), ("a\\nb",))

    def test_each_connection_reads_by_its_own_types(self) -> None:
        from psycopg2 import extensions, extras

        proxied = [self.engine.raw_connection() for _ in range(3)]  # who are given back when they are collected
        a, b, c = (each.driver_connection for each in proxied)
        for connection, name in ((a, "a"), (b, "b")):
            caster = extensions.new_type((19, 25), name, lambda value, _, name=name: f"{name}: {value}")
            extensions.register_type(caster, connection)
        a.notices = b.notices = c.notices = deque()  # one for all
        expected = {a: "a: x", b: "b: x", c: "x"}
        named = {each: each.cursor(f"of {name}") for each, name in expected.items()}
        for cursor in named.values():
            cursor.execute("SELECT 'x'::text FROM generate_series(1, 9)")
        for _ in range(2):
            for connection, text in expected.items():
                for cursor in (connection.cursor(), connection.cursor(cursor_factory=extras.DictCursor)):
                    cursor.executemany("SELECT 1 WHERE %s", [(True,)])
                    cursor.execute("SELECT 'x'::text")
                    self.assertEqual([cursor.fetchone()[0], cursor.cast(25, "x")], [text, text])
                self.assertEqual(named[connection].fetchone(), (text,))
        self.assertEqual(self.sandbox.wire.send("SELECT 'x'::text, 'x'::name"), [("x", "x")])

    def test_the_sandbox_reads_by_no_type_of_the_applications(self) -> None:
        from psycopg2 import extensions

        with mock.patch.dict(extensions.string_types):
            odd = extensions.new_type(tuple(extensions.string_types), "odd", lambda value, _: f"odd: {value}")
            extensions.register_type(odd)  # for all connections, before the class
            wire = type(self.sandbox.wire)(
                self.engine.dialect, self.sandbox.wire.connection, self.sandbox.rules, self.url
            )
            rows = wire.send("SELECT 'x'::text, 'x'::name, 1::oid, 2::bigint, true, ARRAY['x']::text[]")
        self.assertEqual(rows, [("x", "x", 1, 2, True, ["x"])])

    def test_who_holds_a_lock_outside_of_the_sandbox_is_named(self) -> None:
        with connect(self.url, application_name="the other") as other, self.engine.connect() as connection:
            other.execute("SELECT pg_advisory_xact_lock(77)")
            self.wire.run("SET lock_timeout = 50")
            with self.assertRaises(SandboxTimeout) as caught:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(77)")
        holder = r"Held by process \d+ \(\w+, the other, idle in transaction\): SELECT pg_advisory_xact_lock"
        self.assertRegex(str(caught.exception), holder)

    def test_threads_have_their_own_rows_and_types(self) -> None:
        import threading
        import time

        from psycopg2 import extensions

        def work(name: str, found: set[Any]) -> None:
            proxied = self.engine.raw_connection()
            connection = proxied.driver_connection
            kind = extensions.new_type((25,), name, lambda value, _: f"{name}: {value}")
            extensions.register_type(kind, connection)
            ready.wait()
            for _ in range(30):
                with contextlib.closing(connection.cursor()) as cursor:
                    cursor.execute("SELECT sum(g)::text FROM generate_series(1, 20000) g")
                    with connection.cursor() as other:
                        time.sleep(0.001)  # to be in the middle of somebody else's statement now
                        other.execute(b"SELECT 'x'::text FROM generate_series(1, 2)")  # goes another way than str
                        found.add((name, cursor.fetchone(), *other))
                connection.rollback()
            proxied.close()

        ready, found = threading.Barrier(4), set[Any]()
        threads = [threading.Thread(target=work, args=(name, found)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = {each: ((f"{each}: 200010000",), (f"{each}: x",), (f"{each}: x",)) for each in "abcd"}
        self.assertEqual(found, {(each, *rows[each]) for each in "abcd"})

    def test_the_rows_of_a_test_that_has_ended_can_be_read_and_its_cursors_send_nothing(self) -> None:
        connection = self.engine.raw_connection().driver_connection
        cursor = connection.cursor()
        cursor.execute("SELECT generate_series(1, 3)")
        self.sandbox.rollback_to_mark("the next test")
        self.assertEqual(cursor.fetchone(), (1,))
        uses = {
            "execute": ("SELECT 1",),
            "executemany": ("SELECT %s", [(1,)]),
            "callproc": ("abs", [1]),
            "mogrify": ("SELECT 1",),
            "copy_expert": ("COPY pg_class TO STDOUT", io.StringIO()),
            "copy_to": (io.StringIO(), "pg_class"),
            "copy_from": (io.StringIO(), "pg_class"),
        }
        for use, arguments in uses.items():
            with self.subTest(use), self.assertRaises(SandboxClosed):
                getattr(cursor, use)(*arguments)
        self.assertEqual(cursor.fetchall(), [(2,), (3,)])
        self.sandbox.raised.clear()

    def test_who_listens_is_refused_by_name_where_it_would_listen_in_vain(self) -> None:
        connection = self.engine.raw_connection().driver_connection
        self.assertEqual(list(connection.notifies), [])
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("LISTEN news")
        for work in (lambda: connection.notifies, connection.poll, connection.fileno):
            with self.assertRaisesRegex(SandboxEscape, "in vain"):
                work()
        self.sandbox.raised.clear()

    def test_a_statement_is_cancelled_by_another_thread(self) -> None:
        import threading

        connection = self.engine.raw_connection().driver_connection
        found: list[Any] = []
        cursor = connection.cursor()
        cursor.execute("CREATE TEMP TABLE busy (x int)")
        thread = threading.Thread(target=lambda: found.append(outcome(cursor.execute, "SELECT pg_sleep(20)")))
        thread.start()
        while thread.is_alive():
            connection.cursor().close()  # waits for nobody
            connection.cancel()
            thread.join(0.05)
        self.assertEqual([each[0] for each in found], ["QueryCanceled"])
        connection.rollback()


if __name__ == "__main__":
    unittest.main()
