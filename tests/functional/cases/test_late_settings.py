"""What is set when the class has begun is ignored by it, and so refused; what is the user's own is left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sqlalchemy import MetaData, create_engine

from dbtestcase import AsyncDatabaseTest, DatabaseTest, TruncatingDatabaseTest
from tests.support.inner import InnerRuns

ENGINE = create_engine("postgresql+psycopg://app@db.invalid/shop")
KINDS: tuple[Any, ...] = (DatabaseTest, TruncatingDatabaseTest, AsyncDatabaseTest)
LATE: dict[str, Any] = {
    "engines": [ENGINE],
    "outside": [ENGINE],
    "reset_sequences": True,
    "transaction_scope": "test",
    "url": "sqlite://",
    "metadata": MetaData(),
    "database": "existing",
}


def made(base: Any, /, **attributes: Any) -> Any:
    return type("LateTest", (base,), {"__module__": __name__, "test_it": lambda self: None, **attributes})


def setting(name: str, value: object) -> Callable[[Any], None]:
    """A method that sets an attribute, whatever it is called on."""
    words: dict[str, Any] = {"value": value}
    exec(f"def sets(self): self.{name} = value", words)
    return words["sets"]  # type: ignore[no-any-return]


class LateSettingsTest(InnerRuns):
    def test_on_the_test(self) -> None:
        for base in KINDS:
            for name, value in LATE.items():
                for where in ("setUp", "test_it", "tearDown"):
                    with self.subTest(base=base.__name__, name=name, where=where):
                        cls = made(base, **{where: setting(name, value)})
                        self.assertFailed(cls, pattern=rf"has set self\.{name}\b.*\n(.*\n)*.*write {name} = ", tests=1)

    def test_on_the_class(self) -> None:
        for base in KINDS:
            for name, value in LATE.items():
                with self.subTest(base=base.__name__, name=name):
                    cls = made(base, setUpTestData=classmethod(setting(name, value)))
                    self.assertFailed(cls, pattern=rf"LateTest\.{name} was changed when the class had begun")

    def test_after_ours_and_before(self) -> None:
        class Before(DatabaseTest):
            @classmethod
            def setUpClass(cls) -> None:
                cls.engines = [ENGINE]
                cls.reset_sequences = True
                super().setUpClass()

            def test_it(self) -> None:
                with ENGINE.connect() as connection:
                    self.assertEqual(connection.exec_driver_sql("SELECT 1").scalar(), 1)

        class After(DatabaseTest):
            engines: Any = []

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                cls.engines.append(ENGINE)

            def test_it(self) -> None: ...

        self.assertPassed(Before, tests=1)
        self.assertFailed(After, pattern="After.engines was changed")

    def test_what_the_user_asks_for_is_the_users_own(self) -> None:
        class Own(DatabaseTest):
            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                cls.metadata = MetaData()
                cls.metadata.reflect(cls.engine)
                cls.url = "/articles"  # a path is no URL of a database

            def setUp(self) -> None:
                self.engines = [create_engine(self.database_url)]
                for each in self.engines:
                    self.enlist(each)
                self.database = {"name": "shop"}

            def test_it(self) -> None:
                self.factories = None

        self.assertPassed(Own, tests=1)

    def test_what_is_read_of_others_or_for_setting_it_is_not_asked_for(self) -> None:
        lines = (
            "cls.engines = engines",
            "engines = [*app.engines]\n    cls.engines = engines",
            "cls.engines = app.engines",
            "cls.engines = [*cls.engines, *engines]",
            "cls.engines = [\n        *cls.engines,\n        *engines,\n    ]",
            "cls.engines += (engines[0],)",
        )
        for line in lines:
            with self.subTest(line):
                words: dict[str, Any] = {"engines": [ENGINE], "app": SimpleNamespace(engines=[ENGINE])}
                exec(f"def sets(cls):\n    {line}", words)
                cls = made(DatabaseTest, setUpTestData=classmethod(words["sets"]))
                self.assertFailed(cls, pattern=r"LateTest\.engines was changed when the class had begun")

    def test_what_the_user_asks_for_in_any_way_is_the_users_own(self) -> None:
        class Own(DatabaseTest):
            def setUp(self) -> None:
                self.url = "postgresql+psycopg://app@db.invalid/shop"
                self.engines = [ENGINE]
                self.metadata = MetaData()
                self.outside = [ENGINE]

            @property
            def dsn(self) -> Any:
                return self.url

            @functools.cached_property
            def first(self) -> Any:
                return self.engines[0]

            def test_it(self) -> None:
                self.assertIs(getattr(self, "outside")[0], self.first)  # noqa: B009
                self.assertTrue(self.dsn)
                self.assertFalse((lambda: self.metadata.tables)())

        self.assertPassed(Own, tests=1)
