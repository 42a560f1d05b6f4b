"""What a committing test changes of a driver's connection on the client's side ends with the test."""

import importlib
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row
from psycopg.types.numeric import IntLoader
from sqlalchemy import text

from dbtestcase import TruncatingDatabaseTest
from tests.support.inner import InnerRuns
from tests.support.mariadb import require_mariadb
from tests.support.requirements import require_module


class _Loader(IntLoader):
    def load(self, data: Any) -> Any:
        return "read otherwise"


def _register(raw: Any) -> None:
    extensions = importlib.import_module("psycopg2.extensions")
    extensions.register_type(extensions.new_type((23,), "OTHER", lambda *_: "read otherwise"), raw)


def _set(name: str, value: object) -> Callable[[Any], None]:
    return lambda raw: setattr(raw, name, value)


CHANGES: dict[str, list[Callable[[Any], object]]] = {
    "psycopg": [
        _set("row_factory", dict_row),
        _set("cursor_factory", psycopg.ClientCursor),
        _set("prepare_threshold", None),
        _set("isolation_level", psycopg.IsolationLevel.SERIALIZABLE),
        _set("read_only", True),
        _set("autocommit", True),
        lambda raw: raw.adapters.register_loader("int4", _Loader),
        lambda raw: raw.add_notice_handler(print),
    ],
    "psycopg2": [_set("isolation_level", 3), _set("readonly", True), _set("autocommit", True), _register],
    "pg8000": [lambda raw: raw.register_in_adapter(23, lambda _: "read otherwise")],
    "pymysql": [lambda raw: raw.decoders.update({3: lambda _: "read otherwise"})],
    "mysqldb": [lambda raw: raw.encoders.update({complex: lambda *_: "1"})],
}


class BehaviourTest(InnerRuns):
    def run_after(self, driver: str, change: Callable[[Any], object]) -> list[Any]:
        """The connections of four tests, of which the second changes its own; what they read is as ever."""
        dialect = "mariadb" if "mysql" in driver else "postgresql"
        app = sa.create_engine(f"{dialect}+{driver}://nowhere/app", pool_size=1, max_overflow=0)
        self.addCleanup(app.dispose)
        seen: list[Any] = []

        def look(test: Any, change: Callable[[Any], object] = lambda raw: None) -> None:
            with app.connect() as connection:
                raw = connection.connection.driver_connection
                seen.append(raw)
                test.assertEqual(connection.execute(text("SELECT 7")).all(), [(7,)])
                connection.rollback()
                change(raw)
            if driver.startswith("psycopg"):  # the others are told by a statement
                with app.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
                    connection.execute(text("SELECT '7'"))  # SQLAlchemy puts this back itself

        tests: dict[str, Any] = {f"test_{number}": look for number in (1, 3, 4)}
        tests["test_2"] = lambda test: look(test, change)
        facts = {"url": f"{dialect}+{driver}://", "engines": [app], "metadata": sa.MetaData(), "__module__": __name__}
        self.assertPassed(type("Inner", (TruncatingDatabaseTest,), facts | tests), tests=4)
        return seen

    def test_a_connection_that_was_changed_is_replaced_and_no_other(self) -> None:
        for driver, changes in CHANGES.items():
            module = {"mysqldb": "MySQLdb"}.get(driver, driver)
            require_module(module)
            if "mysql" in driver:
                require_mariadb()
                changes = [*changes, _set("cursorclass", importlib.import_module(f"{module}.cursors").DictCursor)]
            for number, change in enumerate(changes):
                with self.subTest(driver, change=number):
                    one, changed, after, last = self.run_after(driver, change)
                    self.assertIs(one, changed)
                    self.assertIsNot(changed, after)
                    self.assertIs(after, last)
