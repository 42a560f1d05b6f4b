"""Every door through which an application reaches its database: opened alike on a real engine and in a sandbox.

A door is a function that takes an engine and yields what it offers: how to write a row, and how to end the transaction.
What a door does not offer is left out of the matrix.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, create_engine, orm, pool

from tests.support.samples import a_share

__all__ = ["BASE", "DOORS", "ENDS", "Boom", "Item", "Opened", "ends_of", "play"]


class BASE(orm.DeclarativeBase):
    pass


class Item(BASE):
    __tablename__ = "item"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    name: orm.Mapped[str]


INSERT = "INSERT INTO item (id, name) VALUES (%s, %s)"
ENDS = ("commit", "rollback", "close", "error", "exception")


class Boom(Exception):
    """The application's own."""


@dataclass
class Opened:
    """What an open door offers.

    :param write: writes a row of this id.
    :param commit: None if leaving the block commits.
    """

    write: Callable[[int], object]
    commit: Callable[[], object] | None = None
    rollback: Callable[[], object] | None = None
    closes: bool = True


Door = Callable[[Engine], contextlib.AbstractContextManager[Opened]]
DOORS: dict[str, tuple[Door, frozenset[str]]] = {}
ALL = frozenset({"psycopg", "psycopg2"})


def door(function: Callable[[Engine], Iterator[Opened]]) -> Callable[[Engine], Iterator[Opened]]:
    """Register a door of every driver."""
    DOORS[function.__name__] = (contextlib.contextmanager(function), ALL)
    return function


def door_of(*drivers: str) -> Callable[[Callable[[Engine], Iterator[Opened]]], Any]:
    """Register a door of these drivers only."""

    def register(function: Callable[[Engine], Iterator[Opened]]) -> Any:
        DOORS[function.__name__] = (contextlib.contextmanager(function), frozenset(drivers))
        return function

    return register


def ends_of(name: str) -> list[str]:
    """The ends that make sense for a door."""
    without = {
        "session_begin": {"rollback"},
        "psycopg_transaction": {"rollback"},
        "psycopg_connection_block": set(),
    }
    return [end for end in ENDS if end not in without.get(name, set())]


def add_tests(cls: type[Any], doors: Iterable[str]) -> None:
    """Give a matrix a test for each door and end, or with a ``share`` one for each door and so manieth of its ends."""
    for name in doors:
        for end in ends_of(name) if cls.share == 1 else [""]:

            def test(self: Any, name: str = name, end: str = end) -> None:
                for each in [end] if end else a_share(ends_of(name), self.share):
                    with self.subTest(end=each):
                        self.check(name, each)

            setattr(cls, f"test_{name}__{end}".rstrip("_"), test)


def play(opened: Door, engine: Engine, end: str) -> str:
    """Write through a door and end it that way.

    :returns: the name of the exception that came out, or an empty string.
    """
    try:
        with opened(engine) as tx:
            tx.write(1)
            tx.write(2)
            if end == "commit" and tx.commit is not None:
                tx.commit()
            elif end == "rollback" and tx.rollback is not None:
                tx.rollback()
            elif end == "error":
                tx.write(1)
            elif end == "exception":
                raise Boom
    except Exception as error:
        return type(error).__name__
    return ""


# -- SQLAlchemy: sessions


@door
def session(engine: Engine) -> Iterator[Opened]:
    with orm.Session(engine) as s:

        def write(number: int) -> None:
            s.add(Item(id=number, name="session"))
            s.flush()
            s.expunge_all()

        yield Opened(write, s.commit, s.rollback)


@door
def session_begin(engine: Engine) -> Iterator[Opened]:
    with orm.sessionmaker(engine).begin() as s:
        yield Opened(lambda n: s.execute(sa.insert(Item).values(id=n, name="begin")))


@door
def session_connection(engine: Engine) -> Iterator[Opened]:
    with orm.Session(engine) as s:
        yield Opened(lambda n: s.connection().exec_driver_sql(INSERT, (n, "connection")), s.commit, s.rollback)


@door
def session_bulk(engine: Engine) -> Iterator[Opened]:
    with orm.Session(engine) as s:
        yield Opened(lambda n: s.execute(sa.insert(Item), [{"id": n, "name": "bulk"}]), s.commit, s.rollback)


@door
def session_in_autocommit(engine: Engine) -> Iterator[Opened]:
    with orm.Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as s:
        yield Opened(lambda n: s.execute(sa.insert(Item).values(id=n, name="auto")), s.commit, s.rollback)


@door
def session_nested(engine: Engine) -> Iterator[Opened]:
    with orm.Session(engine) as s:

        def write(number: int) -> None:
            with s.begin_nested():
                s.execute(sa.insert(Item).values(id=number, name="nested"))
            with contextlib.suppress(sa.exc.IntegrityError), s.begin_nested():
                s.execute(sa.insert(Item).values(id=number, name="twice"))

        yield Opened(write, s.commit, s.rollback)


@door
def scoped_session(engine: Engine) -> Iterator[Opened]:
    registry = orm.scoped_session(orm.sessionmaker(engine))
    try:
        yield Opened(
            lambda n: registry.execute(sa.insert(Item).values(id=n, name="scoped")), registry.commit, registry.rollback
        )
    finally:
        registry.remove()


# -- SQLAlchemy: Core


@door
def engine_begin(engine: Engine) -> Iterator[Opened]:
    with engine.begin() as c:
        transaction = c.get_transaction()
        assert transaction is not None
        yield Opened(lambda n: c.execute(sa.insert(Item).values(id=n, name="begin")), None, transaction.rollback)


@door
def engine_connect(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:
        yield Opened(lambda n: c.execute(sa.insert(Item).values(id=n, name="connect")), c.commit, c.rollback)


@door
def core_executemany(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.execute(sa.insert(Item), [{"id": number, "name": "a"}, {"id": number + 10, "name": "b"}])

        yield Opened(write, c.commit, c.rollback)


@door
def core_returning(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:
        yield Opened(
            lambda n: c.execute(sa.insert(Item).values(id=n, name="returning").returning(Item.id)).all(),
            c.commit,
            c.rollback,
        )


@door
def core_savepoint(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            with c.begin_nested():
                c.exec_driver_sql(INSERT, (number, "kept"))
            nested = c.begin_nested()
            c.exec_driver_sql(INSERT, (number + 10, "undone"))
            nested.rollback()

        yield Opened(write, c.commit, c.rollback)


@door
def streamed_result(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.exec_driver_sql(INSERT, (number, "streamed"))
            result = c.execution_options(stream_results=True, yield_per=1).execute(sa.select(Item.id))
            assert number in result.scalars().all()

        yield Opened(write, c.commit, c.rollback)


@door
def autocommit_of_the_connection(engine: Engine) -> Iterator[Opened]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        yield Opened(lambda n: c.exec_driver_sql(INSERT, (n, "auto")), c.commit, c.rollback)


@door
def autocommit_of_the_engine(engine: Engine) -> Iterator[Opened]:
    other = create_engine(engine.url, isolation_level="AUTOCOMMIT")
    with contextlib.closing(_Disposed(other)), other.connect() as c:
        yield Opened(lambda n: c.exec_driver_sql(INSERT, (n, "auto")), c.commit, c.rollback)


@door
def serializable(engine: Engine) -> Iterator[Opened]:
    other = create_engine(engine.url, isolation_level="SERIALIZABLE")
    with contextlib.closing(_Disposed(other)), other.connect() as c:
        yield Opened(lambda n: c.exec_driver_sql(INSERT, (n, "serializable")), c.commit, c.rollback)


@door
def repeatable_read_of_the_connection(engine: Engine) -> Iterator[Opened]:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as c:
        yield Opened(lambda n: c.exec_driver_sql(INSERT, (n, "repeatable")), c.commit, c.rollback)


@door
def read_only_connection(engine: Engine) -> Iterator[Opened]:
    with engine.connect().execution_options(postgresql_readonly=True) as c:
        yield Opened(lambda n: c.exec_driver_sql(INSERT, (n, "read only")), c.commit, c.rollback)


class _Disposed:
    def __init__(self, engine: Engine) -> None:
        self.close = engine.dispose


def _pool_door(name: str, pool_class: type[pool.Pool], **options: Any) -> None:
    def opened(engine: Engine) -> Iterator[Opened]:
        other = create_engine(engine.url, poolclass=pool_class, **options)
        with contextlib.closing(_Disposed(other)), other.connect() as c:
            yield Opened(lambda n: c.exec_driver_sql(INSERT, (n, name)), c.commit, c.rollback)

    DOORS[name] = (contextlib.contextmanager(opened), ALL)


_pool_door("engine_made_in_the_test", pool.QueuePool)
_pool_door("engine_with_one_connection", pool.QueuePool, pool_size=1, max_overflow=0)
_pool_door("engine_that_pings", pool.QueuePool, pool_pre_ping=True)
_pool_door("engine_that_recycles", pool.QueuePool, pool_recycle=0)
_pool_door("engine_without_reset", pool.QueuePool, pool_reset_on_return=None)
_pool_door("null_pool", pool.NullPool)
_pool_door("static_pool", pool.StaticPool)
_pool_door("assertion_pool", pool.AssertionPool)
_pool_door("singleton_thread_pool", pool.SingletonThreadPool)


@door
def disposed_in_the_middle(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.exec_driver_sql(INSERT, (number, "before"))
            engine.dispose()
            with engine.begin() as other:
                assert other.exec_driver_sql("SELECT 1").scalar() == 1

        yield Opened(write, c.commit, c.rollback)


@door
def invalidated_in_the_middle(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            if c.get_transaction() is None:
                with engine.connect() as other:
                    other.exec_driver_sql(INSERT, (number + 20, "lost"))
                    other.invalidate()
            c.exec_driver_sql(INSERT, (number, "kept"))

        yield Opened(write, c.commit, c.rollback)


@door
def thread_of_its_own(engine: Engine) -> Iterator[Opened]:
    c = engine.connect()

    def write(number: int) -> None:
        caught: list[Exception] = []

        def work() -> None:
            try:
                c.exec_driver_sql(INSERT, (number, "thread"))
            except Exception as error:
                caught.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        for error in caught:
            raise error

    with c:
        yield Opened(write, c.commit, c.rollback)


# -- the driver


@door
def raw_connection(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        yield Opened(lambda n: c.cursor().execute(INSERT, (n, "raw")), c.commit, c.rollback)


@door
def raw_executemany(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        yield Opened(lambda n: c.cursor().executemany(INSERT, [(n, "many"), (n + 10, "many")]), c.commit, c.rollback)


def _driver(c: Any) -> Any:
    return c.driver_connection


@door
def autocommit_of_the_driver(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        before, _driver(c).autocommit = _driver(c).autocommit, True
        try:
            yield Opened(lambda n: c.cursor().execute(INSERT, (n, "auto")), c.commit, c.rollback)
        finally:
            _driver(c).autocommit = before  # sqlite3 has a third mode


@door
def autocommit_executemany(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        before, _driver(c).autocommit = _driver(c).autocommit, True
        try:
            yield Opened(lambda n: c.cursor().executemany(INSERT, [(n, "a"), (n + 10, "b")]), c.commit, c.rollback)
        finally:
            _driver(c).autocommit = before  # sqlite3 has a third mode


@door
def savepoints_as_text(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        cursor = c.cursor()

        def write(number: int) -> None:
            cursor.execute(INSERT, (number, "kept"))
            cursor.execute("SAVEPOINT Mine")
            cursor.execute(INSERT, (number + 10, "undone"))
            cursor.execute("/* back */ ROLLBACK TO SAVEPOINT mine")
            cursor.execute("RELEASE mine -- done")

        yield Opened(write, c.commit, c.rollback)


@door
def several_statements_in_one_string(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        yield Opened(
            lambda n: c.cursor().execute(f"INSERT INTO item VALUES ({n}, ';'); UPDATE item SET name = $$;$$"),
            c.commit,
            c.rollback,
        )


@door
def function_that_writes(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:
        yield Opened(lambda n: c.exec_driver_sql("SELECT add_item(%s)", (n,)).scalar(), c.commit, c.rollback)


@door
def view_that_writes(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.exec_driver_sql(f"SELECT set_config('app.next', '{number}', false)")
            c.exec_driver_sql("SELECT * FROM writing_view").all()

        yield Opened(write, c.commit, c.rollback)


@door
def trigger_that_keeps_no_row(engine: Engine) -> Iterator[Opened]:
    """The statement's row count is 0, and yet it has written."""
    with engine.connect() as c:
        yield Opened(lambda n: c.exec_driver_sql("INSERT INTO diverted VALUES (%s)", (n,)), c.commit, c.rollback)


@door
def do_block(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:
        yield Opened(
            lambda n: c.exec_driver_sql(f"DO $$ BEGIN INSERT INTO item VALUES ({n}, 'do'); END $$"),
            c.commit,
            c.rollback,
        )


@door
def schema_change(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.exec_driver_sql(f"CREATE TABLE made_{number} (id int)")
            c.exec_driver_sql("ALTER TABLE item ADD COLUMN IF NOT EXISTS extra int")
            c.exec_driver_sql("INSERT INTO item (id, name, extra) VALUES (%s, 'ddl', 1)", (number,))
            c.exec_driver_sql("ALTER TABLE item DROP COLUMN extra")
            c.exec_driver_sql(f"DROP TABLE made_{number}")

        yield Opened(write, c.commit, c.rollback)


@door
def deferred_constraint(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.exec_driver_sql("INSERT INTO part VALUES (%s, %s)", (number, number))
            c.exec_driver_sql(INSERT, (number, "late parent"))

        yield Opened(write, c.commit, c.rollback)


@door
def broken_deferred_constraint(engine: Engine) -> Iterator[Opened]:
    with engine.connect() as c:

        def write(number: int) -> None:
            c.exec_driver_sql(INSERT, (number, "item"))
            c.exec_driver_sql("INSERT INTO part VALUES (%s, -1)", (number,))

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg")
def psycopg_copy_in(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            with _driver(c).cursor().copy("COPY item FROM STDIN") as copy:
                copy.write_row((number, "copy"))
            with _driver(c).cursor().copy("COPY item TO STDOUT") as copy:
                assert list(copy.rows())

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg")
def psycopg_copy_in_autocommit(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        _driver(c).autocommit = True

        def write(number: int) -> None:
            with _driver(c).cursor().copy("COPY item FROM STDIN") as copy:
                copy.write_row((number, "copy"))

        try:
            yield Opened(write, c.commit, c.rollback)
        finally:
            _driver(c).autocommit = False


@door_of("psycopg2")
def psycopg2_copy(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            c.cursor().copy_expert("COPY item FROM STDIN", io.StringIO(f"{number}\tcopy\n"))
            c.cursor().copy_from(io.StringIO(f"{number + 10}\tcopy\n"), "item")
            out = io.StringIO()
            c.cursor().copy_to(out, "item")
            assert out.getvalue()

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg2")
def psycopg2_connection_block(engine: Engine) -> Iterator[Opened]:
    c = engine.raw_connection()
    try:
        with _driver(c) as inner, inner.cursor() as cursor:
            yield Opened(lambda n: cursor.execute(INSERT, (n, "block")), inner.commit, inner.rollback)
    finally:
        c.close()


@door_of("psycopg2")
def psycopg2_named_cursor(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            c.cursor().execute(INSERT, (number, "named"))
            with _driver(c).cursor("named") as cursor:
                cursor.execute("SELECT id FROM item ORDER BY id")
                assert cursor.fetchone() and list(cursor) is not None

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg2")
def psycopg2_execute_values(engine: Engine) -> Iterator[Opened]:
    from psycopg2 import extras

    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            rows = [(number, "a"), (number + 10, "b")]
            extras.execute_values(_driver(c).cursor(), "INSERT INTO item VALUES %s", rows)
            extras.execute_batch(_driver(c).cursor(), INSERT, [(number + 20, "c"), (number + 30, "d")])

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg2")
def psycopg2_composable(engine: Engine) -> Iterator[Opened]:
    from psycopg2 import sql

    with contextlib.closing(engine.raw_connection()) as c:
        statement = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(sql.Identifier("item"))
        yield Opened(lambda n: _driver(c).cursor().execute(statement, (n, "sql")), c.commit, c.rollback)


@door_of("psycopg")
def psycopg_composable(engine: Engine) -> Iterator[Opened]:
    from psycopg import sql

    with contextlib.closing(engine.raw_connection()) as c:
        statement = sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(sql.Identifier("item"))
        yield Opened(lambda n: _driver(c).execute(statement, (n, "sql")), c.commit, c.rollback)


def _cursor_class(name: str, text: str = INSERT, *, autocommit: bool = False) -> None:
    def opened(engine: Engine) -> Iterator[Opened]:
        import psycopg

        with contextlib.closing(engine.raw_connection()) as c:
            _driver(c).autocommit = autocommit
            try:
                yield Opened(
                    lambda n: getattr(psycopg, name)(_driver(c)).execute(text, (n, "cursor")), c.commit, c.rollback
                )
            finally:
                _driver(c).autocommit = False

    key = f"psycopg_{name}{'_in_autocommit' if autocommit else ''}"
    DOORS[key] = (contextlib.contextmanager(opened), frozenset({"psycopg"}))


_cursor_class("Cursor")
_cursor_class("ClientCursor")
_cursor_class("ClientCursor", autocommit=True)
_cursor_class("RawCursor", INSERT.replace("%s", "$1", 1).replace("%s", "$2", 1))


@door_of("psycopg")
def psycopg_transaction(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        with _driver(c).transaction():

            def write(number: int) -> None:
                _driver(c).execute(INSERT, (number, "outer"))
                with contextlib.suppress(Boom), _driver(c).transaction():
                    _driver(c).execute(INSERT, (number + 10, "inner"))
                    raise Boom

            yield Opened(write)


@door_of("psycopg")
def psycopg_transaction_in_autocommit(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        _driver(c).autocommit = True

        def write(number: int) -> None:
            with _driver(c).transaction():
                _driver(c).execute(INSERT, (number, "kept"))
            with _driver(c).transaction(force_rollback=True):
                _driver(c).execute(INSERT, (number + 10, "undone"))

        try:
            yield Opened(write)
        finally:
            _driver(c).autocommit = False


@door_of("psycopg")
def psycopg_connection_block(engine: Engine) -> Iterator[Opened]:
    c = engine.raw_connection()
    try:
        with _driver(c) as inner:
            yield Opened(lambda n: inner.execute(INSERT, (n, "block")), inner.commit, inner.rollback)
    finally:
        c.invalidate()


@door_of("psycopg")
def psycopg_pipeline(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            with _driver(c).pipeline():
                _driver(c).execute(INSERT, (number, "a"))
                _driver(c).execute(INSERT, (number + 10, "b"))

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg")
def psycopg_pipeline_in_autocommit(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        _driver(c).autocommit = True

        def write(number: int) -> None:
            with _driver(c).pipeline() as pipeline:
                _driver(c).execute(INSERT, (number, "a"))
                pipeline.sync()
                _driver(c).execute(INSERT, (number + 10, "b"))

        try:
            yield Opened(write, c.commit, c.rollback)
        finally:
            _driver(c).autocommit = False


@door_of("psycopg")
def psycopg_stream(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            text = INSERT + " RETURNING id"
            assert list(_driver(c).cursor().stream(text, (number, "stream"))) == [(number,)]

        yield Opened(write, c.commit, c.rollback)


@door_of("psycopg")
def psycopg_stream_in_autocommit(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:
        _driver(c).autocommit = True
        try:
            yield Opened(
                lambda n: list(_driver(c).cursor().stream(INSERT + " RETURNING id", (n, "stream"))),
                c.commit,
                c.rollback,
            )
        finally:
            _driver(c).autocommit = False


@door_of("psycopg")
def psycopg_server_cursor(engine: Engine) -> Iterator[Opened]:
    with contextlib.closing(engine.raw_connection()) as c:

        def write(number: int) -> None:
            _driver(c).execute(INSERT, (number, "server"))
            with _driver(c).cursor("named") as cursor:
                cursor.execute("SELECT id FROM item")
                assert cursor.fetchone() and cursor.fetchall() is not None

        yield Opened(write, c.commit, c.rollback)
