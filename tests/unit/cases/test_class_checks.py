"""What a class is refused for when it begins, and what it is not: no database is needed to find out."""

import functools
import inspect
import os
import sys
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from alembic.config import Config
from sqlalchemy import Column, Integer, MetaData, Table, create_engine
from sqlalchemy.orm import Session, declarative_base, registry, sessionmaker

import dbtestcase
from dbtestcase import (
    AsyncDatabaseTest,
    AsyncMigratedDatabaseTest,
    AsyncTruncatingDatabaseTest,
    ConfigurationError,
    DatabaseTest,
    MigratedDatabaseTest,
    MigrationChecks,
    TruncatingDatabaseTest,
)
from dbtestcase.cases.bases import HOOKS, Bases
from dbtestcase.cases.configuration import metadata_in
from dbtestcase.cases.spelling import distance, nearest, refuse_misspelt_hooks
from dbtestcase.isolation.engines import resolve_engines

ENGINE = create_engine("sqlite://")
BASE = declarative_base()

# What a user may well call something of his own, whatever it holds.
PLAUSIBLE = """
    urls url_prefix base_url engine_url db_url database_name database_path databases datasets data metadata_path
    metadata_file meta factory factory_class session_factory sessions client app db connection_string
    migration migration_name migrate_from migrate_to revision outsider insider inside endings engineers engine_name
    engine_type transaction transactions transaction_type transaction_state scope scopes sequence sequences
    reset_token reset_password resets fixtures users victories entries ranges table tables schema schemas models
    arguments x_axis arguments_for exclude excluded exclude_from include metadata_a metadata_2 metadata2 engines_made
    url_map uri URLS URL DATABASE_NAME ENGINES_BY_NAME maxDiff longMessage
"""

# A slip, and what it is a slip of.
SLIPS = {
    "metadatas": "metadata",
    "meta_data": "metadata",
    "metadta": "metadata",
    "Metadata": "metadata",
    "engins": "engines",
    "egnines": "engines",
    "engines_": "engines",
    "enginess": "engines",
    "transaction_scoop": "transaction_scope",
    "transactionScope": "transaction_scope",
    "transaction_scopes": "transaction_scope",
    "reset_sequence": "reset_sequences",
    "resetSequences": "reset_sequences",
    "reset_seqences": "reset_sequences",
}
SLIPS_WITH_A_VALUE = {
    "ulr": ("url", "sqlite://"),
    "urls": ("url", ["sqlite://"]),
    "databse_url": ("database_url", "postgresql://app@localhost/shop"),
    "databse": ("database", "existing"),
    "session_clas": ("session_class", Session),
    "metadatas": ("metadata", registry().generate_base()),
    "METADATA": ("metadata", MetaData()),
    "ENGINES": ("engines", [ENGINE]),
    "outsiders": ("outside", [ENGINE]),
    "migration": ("migrations", "alembic.ini"),
}
SLIPS_OF_HOOKS = {
    "setupTestData": "setUpTestData",
    "setUpTestdata": "setUpTestData",
    "set_up_test_data": "setUpTestData",
    "setUpTestDatas": "setUpTestData",
    "loadBaseData": "load_base_data",
    "load_base_date": "load_base_data",
    "load_basedata": "load_base_data",
    "setup": "setUp",
    "tear_down": "tearDown",
    "setupClass": "setUpClass",
    "teardown_class": "tearDownClass",
    "async_set_up": "asyncSetUp",
    "load_initial_data": "load_base_data",
    "load_base_schema": "load_initial_schema",
    "setUpClassData": "setUpTestData",
}


def made(base: type = DatabaseTest, bases: tuple[type, ...] = (), /, **attributes: Any) -> Any:
    return type("MadeTest", (*bases, base), {"__module__": __name__, **attributes})


class Checks(unittest.TestCase):
    def assertRefused(self, cls: Any, *words: str) -> str:
        with self.assertRaises(ConfigurationError) as raised:
            cls._dbtestcase.check()
        for word in words:
            self.assertRegex(str(raised.exception), word)
        return str(raised.exception)

    def assertAccepted(self, cls: Any) -> None:
        cls._dbtestcase.check()


class SpellingTest(unittest.TestCase):
    def test_the_distance_counts_edits(self) -> None:
        for one, other, edits in (("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)):
            with self.subTest(one=one, other=other):
                self.assertEqual(distance(one, other), edits)
                self.assertEqual(distance(other, one), edits)

    def test_a_short_name_has_few_slips(self) -> None:
        self.assertEqual(nearest("ULR", ["url"]), "url")
        self.assertEqual(nearest("urls", ["url"]), "url")
        self.assertIsNone(nearest("base_url", ["url"]))


class NamesTest(Checks):
    def test_a_slip_is_named_with_what_it_is_a_slip_of(self) -> None:
        for name, meant in SLIPS.items():
            with self.subTest(name):
                self.assertRefused(made(**{name: 1}), rf"MadeTest\.{name}\b", rf"Did you mean {meant}\?")
        for name, (meant, value) in SLIPS_WITH_A_VALUE.items():
            with self.subTest(name):
                self.assertRefused(made(**{name: value}), rf"MadeTest\.{name}\b", rf"Did you mean {meant}\?")

    def test_an_engine_is_named_in_one_list(self) -> None:
        for both in ({"outside": [ENGINE]}, {"outside": ENGINE}, {"outside": lambda: [ENGINE]}):
            with self.subTest(both), self.assertRaisesRegex(ConfigurationError, "in `engines` and in `outside`"):
                made(engines=[ENGINE], **both).setUpClass()

    def test_a_slip_in_a_hook_is_named_too(self) -> None:
        for name, meant in SLIPS_OF_HOOKS.items():
            with self.subTest(name):
                self.assertRefused(made(**{name: classmethod(lambda cls: None)}), rf"Did you mean {meant}\?")

    def test_a_slip_in_a_base_of_the_users_is_found(self) -> None:
        mixin = type("Mixin", (), {"__module__": __name__, "metadatas": MetaData()})
        self.assertRefused(made(DatabaseTest, (mixin,)), r"Mixin\.metadatas")
        self.assertRefused(made(made(metadatas=MetaData())), r"metadatas")

    def test_a_name_of_the_users_own_is_left_alone(self) -> None:
        for name in PLAUSIBLE.split():
            for value in (None, "text", 1, ["text"], {"a": 1}, Path("x"), "https://example.com"):
                with self.subTest(name=name, value=value):
                    self.assertAccepted(made(**{name: value}))

    def test_methods_tests_and_what_the_classs_own_code_reads_are_left_alone(self) -> None:
        def read(self: Any) -> Any:
            return self.metadatas

        for attributes in (
            {"test_metadata": lambda self: None, "testmetadata": lambda self: None},
            {"engins": lambda self: None, "Engines": type("Engines", (), {}), "engines_": property(lambda self: 1)},
            {"metadatas": ["text"], "helper": read},
            {"_engines": 1, "__metadata": 2},
        ):
            with self.subTest(list(attributes)):
                self.assertAccepted(made(**attributes))

    def test_what_another_framework_defines_is_left_alone(self) -> None:
        framework = type("FrameworkTestCase", (unittest.TestCase,), {"metadatas": None, "reset_sequence": False})
        self.assertAccepted(made(DatabaseTest, (framework,)))
        self.assertAccepted(made(DatabaseTest, (framework,), metadatas=1, reset_sequence=True))

    def test_what_a_test_is_given_cannot_be_set_on_the_class(self) -> None:
        for name, word in {
            "engine": r"engines = \[engine\]",
            "session": r"engines = \[engine\]",
            "connection": "self.connection",
            "database_url": "`url`",
        }.items():
            for value in (ENGINE, None, "text", sessionmaker(ENGINE)()):
                with self.subTest(name=name, value=value):
                    self.assertRefused(made(**{name: value}), rf"MadeTest\.{name} is set on the class", word)
            with self.subTest(name, property=True):
                self.assertAccepted(made(**{name: property(lambda self: None)}))
                self.assertAccepted(made(**{name: functools.cached_property(lambda self: None)}))
        self.assertRefused(made(AsyncDatabaseTest, sync_engine=ENGINE), "sync_engine")
        self.assertAccepted(made(DatabaseTest, sync_engine=ENGINE))

    def test_a_value_behind_a_colon_is_refused(self) -> None:
        values = {
            "engines": [ENGINE],
            "reset_sequences": True,
            "database": "existing",
            "transaction_scope": "'test'",
            "url": "sqlite://",
        }
        for name, value in values.items():
            with self.subTest(name):
                self.assertRefused(made(__annotations__={name: value}), rf"{name} has a value behind a colon", "annot")
        types: list[Any] = [bool, "'list[str]'", "ClassVar[Any]", list[str], str | None, Any, None, Callable[[], str]]
        for value in types:
            with self.subTest(value):
                self.assertAccepted(made(__annotations__={"url": value}))
        self.assertAccepted(made(__annotations__={"database": "create"}, database="existing"))

    def test_what_can_be_read_once_is_refused(self) -> None:
        for name in ("engines", "outside", "factories"):
            with self.subTest(name):
                self.assertRefused(made(**{name: iter([ENGINE])}), rf"{name} is <list_iterator", rf"{name} = list")

    def test_a_password_is_not_shown(self) -> None:
        said = self.assertRefused(made(engine=create_engine("postgresql+psycopg://app:secret@db/shop")), r"\*\*\*")
        self.assertNotIn("secret", said)

    def test_an_attribute_of_another_class_is_named(self) -> None:
        self.assertRefused(made(migrations="alembic.ini"), "MigratedDatabaseTest")
        self.assertRefused(made(x_arguments=["tenant=a"]), "MigratedDatabaseTest")
        self.assertRefused(made(MigratedDatabaseTest, exclude_from_stairway=["0001"]), "MigrationChecks")
        self.assertRefused(made(migrations="alembic"), "MigratedDatabaseTest")
        self.assertAccepted(made(migrations=["0001", "0002"]))
        self.assertAccepted(made(migrations="alembic", look=lambda self: self.migrations))
        self.assertAccepted(made(TruncatingDatabaseTest, migrations="alembic.ini"))

    def test_what_is_alembics_is_no_attribute_of_the_users_own(self) -> None:
        config = type("OurConfig", (Config,), {})("db/alembic.ini")
        for base in (MigratedDatabaseTest, AsyncMigratedDatabaseTest, TruncatingDatabaseTest):
            for name in ("alembic", "cfg", "alembic_config"):
                with self.subTest(base=base.__name__, name=name):
                    self.assertRefused(made(base, **{name: config}), "Did you mean migrations")
            self.assertRefused(made(base, alembic_ini="db/alembic.ini"), "Did you mean migrations")
            self.assertRefused(made(base, x_args=["tenant=a"]), "Did you mean x_arguments")
            self.assertAccepted(made(base, ini="paste.ini"))
            self.assertAccepted(made(base, cfg=config, look=lambda self: self.cfg))
            self.assertAccepted(made(base, migrations="alembic.ini", cfg=config))
        self.assertAccepted(made(DatabaseTest, cfg=config))

    def test_every_public_attribute_and_hook_is_known(self) -> None:
        known = Bases(MigratedDatabaseTest).settings | Bases(dbtestcase.MigrationChecks).settings
        self.assertLessEqual({"url", "database", "metadata", "engines", "factories", "migrations"}, known)
        self.assertLessEqual({"transaction_scope", "reset_sequences", "exclude_from_comparison"}, known)
        for hook in HOOKS:
            self.assertTrue(callable(getattr(DatabaseTest, hook)))


class NeverRanTest(Checks):
    def test_tests_that_would_never_run_are_refused(self) -> None:
        async def coroutine(self: Any) -> None: ...

        async def async_generator(self: Any) -> Any:
            yield

        def generator(self: Any) -> Any:
            yield

        for function in (coroutine, async_generator, generator):
            for base in (DatabaseTest, TruncatingDatabaseTest, MigratedDatabaseTest, AsyncDatabaseTest):
                with self.subTest(function=function.__name__, base=base.__name__):
                    cls = made(base, test_it=function)
                    if function is coroutine and base is AsyncDatabaseTest:
                        self.assertAccepted(cls)
                    else:
                        self.assertRefused(cls, r"MadeTest\.test_it is", "would never run")
        self.assertRefused(made(test_it=mock.patch("os.getcwd")(coroutine)), "test_it")
        self.assertRefused(made(test_it=functools.partialmethod(coroutine)), "test_it")
        self.assertRefused(made(runTest=coroutine), "runTest")
        self.assertAccepted(made(testdata=[1], test_helper=staticmethod(len)))

    def test_hooks_that_would_never_run_are_refused(self) -> None:
        async def coroutine(self: Any, *more: Any) -> None: ...

        def generator(self: Any, *more: Any) -> Any:
            yield

        for base in (DatabaseTest, AsyncDatabaseTest):
            for function in (coroutine, generator):
                for name in ("setUp", "tearDown"):
                    with self.subTest(base=base.__name__, name=name, function=function.__name__):
                        self.assertRefused(made(base, **{name: function}), rf"MadeTest\.{name} is a ")
                for name in ("setUpTestData", "load_base_data", "tearDownClass"):
                    with self.subTest(base=base.__name__, name=name, function=function.__name__):
                        self.assertRefused(made(base, **{name: classmethod(function)}), rf"MadeTest\.{name} is a ")
        self.assertRefused(made(asyncSetUp=coroutine), "asyncSetUp would never run", "setUp")
        self.assertRefused(made(AsyncDatabaseTest, asyncTearDown=lambda self: None), "is no coroutine function")
        self.assertAccepted(made(AsyncDatabaseTest, asyncSetUp=coroutine, asyncTearDown=coroutine))

    def of_module(self, lines: str) -> Any:
        """A class in a module of these lines."""
        module = types.ModuleType("test_hooks")
        self.enterContext(mock.patch.dict(sys.modules, test_hooks=module))
        exec(lines, vars(module))
        return made(__module__="test_hooks")

    def test_hooks_of_the_module_that_nobody_would_call_are_refused(self) -> None:
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        for name, meant in {
            "setupModule": "setUpModule",
            "setUpModules": "setUpModule",
            "setup_module": "setUpModule",
            "tearDownModul": "tearDownModule",
            "teardown_module": "tearDownModule",
        }.items():
            refuse_misspelt_hooks.cache_clear()
            for _ in range(2):  # each class of the module
                with self.subTest(name):
                    cls = self.of_module(f"def {name}(module=None): ...")
                    self.assertRefused(cls, rf"test_hooks\.{name}\(\)", rf"Did you mean {meant}\(\)\?")
        for lines in (
            "def set_up_module(): ...\ndef setUpModule(): set_up_module()",
            "def set_up_module(): ...\nclass Helper:\n    def help(self): set_up_module()",
            "def setup_modules(one, two): ...",
            "from unittest.mock import patch as setupModule",
            "setup_module = 'text'",
            "def module(): ...",
        ):
            with self.subTest(lines):
                refuse_misspelt_hooks.cache_clear()
                self.assertAccepted(self.of_module(lines))

    def test_hooks_of_the_module_that_it_uses_at_once_are_its_own(self) -> None:
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        for line, is_used in {
            "setUpModule = setup_module": True,
            "setup_module()": True,
            "if __name__ == '__main__': setup_module()": True,
            "HOOKS = [setup_module]": True,
            "def helper(hook=setup_module): ...": True,
            "module.setup_module = 'setup_module'": False,
        }.items():
            with self.subTest(line):
                refuse_misspelt_hooks.cache_clear()
                lines = f"import types as module\ndef setup_module(): ...\n{line}"
                with mock.patch.object(inspect, "getsource", lambda module, lines=lines: lines):
                    (self.assertAccepted if is_used else self.assertRefused)(self.of_module(lines))

    def test_pytest_has_names_of_its_own_for_the_hooks_of_a_module(self) -> None:
        self.enterContext(mock.patch.dict(os.environ, PYTEST_CURRENT_TEST="test_it (setup)"))
        refuse_misspelt_hooks.cache_clear()
        self.assertAccepted(self.of_module("def setup_module(module): ...\ndef teardown_module(): ..."))
        refuse_misspelt_hooks.cache_clear()
        self.assertRefused(self.of_module("def setupModule(): ..."), "setUpModule")

    def test_hooks_of_the_class_are_class_methods(self) -> None:
        for name in HOOKS:
            for function in (lambda self: None, staticmethod(lambda: None)):
                with self.subTest(name=name, function=function):
                    self.assertRefused(made(**{name: function}), rf"MadeTest\.{name} is not a class method", "@class")
        self.assertAccepted(made(load_base_data=mock.Mock()))


def runs(body: Callable[[Any, Any], Any]) -> type[unittest.TestCase]:
    return type("Framework", (unittest.TestCase,), {"__module__": "framework", "run": body})


class OrderOfBasesTest(Checks):
    def test_a_run_that_does_not_reach_ours_is_refused(self) -> None:
        framework = runs(lambda self, result=None: unittest.TestCase.run(self, result))
        self.assertRefused(
            made(DatabaseTest, (framework,)), r"framework\.Framework\.run\(\)", r"MadeTest\(DatabaseTest, Framework\)"
        )
        self.assertAccepted(type("MadeTest", (DatabaseTest, framework), {}))
        self.assertRefused(made(run=lambda self, result=None: None), r"MadeTest\.run\(\) does not call super\(\)\.run")

    def test_a_run_that_reaches_ours_is_fine(self) -> None:
        class Cooperative(unittest.TestCase):
            def run(self, result: Any = None) -> Any:
                return super().run(result)

        class ByName(DatabaseTest):
            @functools.wraps(DatabaseTest.run)
            def run(self, result: Any = None) -> Any:
                return DatabaseTest.run(self, result)

        self.assertAccepted(made(DatabaseTest, (Cooperative,)))
        self.assertAccepted(ByName)

    def test_a_run_that_does_not_hand_on_when_it_comes_to_it_fails_the_test(self) -> None:
        def silent(test: Any, result: Any) -> None: ...

        def lying(test: Any, result: Any) -> None:
            result.startTest(test)
            result.addSuccess(test)
            result.stopTest(test)

        def skipping(test: Any, result: Any) -> None:
            result.startTest(test)
            result.addSkip(test, "not today")
            result.stopTest(test)

        for report, errors, skipped in ((silent, 1, 0), (lying, 1, 0), (skipping, 0, 1)):
            for kind in (DatabaseTest, AsyncDatabaseTest):

                class Framework(unittest.TestCase):
                    def run(self, result: Any = None) -> Any:
                        return report(self, result) or (result if sys else super().run(result))  # noqa: B023

                class Inner(Framework, kind):  # type: ignore[misc,valid-type]
                    def test_it(self) -> None:
                        raise AssertionError("it has run")

                class Again(Inner):
                    def run(self, result: Any = None) -> Any:
                        return super().run(result)

                for cls in (Inner, Again, type("Inherited", (Again,), {})):
                    with self.subTest(report.__name__, cls=cls.__name__, kind=kind.__name__):
                        result = unittest.TestResult()
                        cls("test_it")(result)
                        said = [text for _, text in result.errors if "has not begun, and nobody was told" in text]
                        self.assertEqual(
                            (len(said), len(result.errors), len(result.skipped)), (errors, errors, skipped)
                        )
                        self.assertNotIn("addSkip", vars(result))
                if errors and report is silent:
                    with self.assertRaisesRegex(ConfigurationError, "Framework.run.. did not hand it on"):
                        Inner("test_it").run()

    def test_a_base_after_ours_is_refused_where_it_would_be_ignored(self) -> None:
        for name, value in {
            "metadata": MetaData(),
            "engines": [ENGINE],
            "setUpTestData": classmethod(lambda cls: None),
            "setUp": lambda self: None,
            "tearDownClass": classmethod(lambda cls: None),
        }.items():
            with self.subTest(name):
                mixin = type("Mixin", (), {name: value, "__module__": __name__})
                late = type("MadeTest", (DatabaseTest, mixin), {"__module__": __name__})
                self.assertRefused(late, rf"Mixin\.{name} is hidden by", r"class MadeTest\(Mixin, DatabaseTest\)")
                self.assertAccepted(made(DatabaseTest, (mixin,)))
        migrated = made(DatabaseTest, metadata=MetaData())
        self.assertAccepted(type("MadeTest", (MigratedDatabaseTest, migrated), {}))

    def test_kinds_that_do_not_go_together_are_refused(self) -> None:
        for bases in ((TruncatingDatabaseTest, AsyncDatabaseTest), (AsyncDatabaseTest, TruncatingDatabaseTest)):
            self.assertRefused(type("MadeTest", bases, {}), r"class MadeTest\(AsyncTruncatingDatabaseTest\)")
        self.assertAccepted(type("MadeTest", (AsyncTruncatingDatabaseTest, made(DatabaseTest)), {}))
        for base in (DatabaseTest, unittest.TestCase):
            with self.assertRaisesRegex(ConfigurationError, r"MadeTest\(MigrationChecks, MigratedDatabaseTest\)"):
                type("MadeTest", (MigrationChecks, base), {})
        self.assertAccepted(type("MadeTest", (type("Checks", (MigrationChecks,), {}), TruncatingDatabaseTest), {}))

    def test_two_things_with_one_name_are_refused(self) -> None:
        framework = type("Framework", (unittest.TestCase,), {"session": None, "__module__": "framework"})
        for bases in ((framework, DatabaseTest), (DatabaseTest, framework)):
            with self.subTest(bases):
                self.assertRefused(
                    type("MadeTest", bases, {}), r"framework\.Framework\.session and DatabaseTest\.session"
                )


class ValuesTest(Checks):
    def test_an_attribute_that_holds_something_else_is_refused(self) -> None:
        self.assertRefused(made(transaction_scope="tests"), "'tests'", '"class"')
        self.assertRefused(made(reset_sequences="no"), "'no'", "True or False")
        for wrong in (sessionmaker(), Session(), object):
            self.assertRefused(made(session_class=wrong), "session_class is", "Session .the default. or a subclass")
        self.assertRefused(made(AsyncDatabaseTest, session_class=Session), "AsyncSession .the default. or a subclass")


class MetadataTest(unittest.TestCase):
    def test_whatever_holds_the_tables_is_taken_for_them(self) -> None:
        other, mapper = MetaData(), registry()
        several = types.SimpleNamespace(metadatas={None: BASE.metadata, "other": other}, metadata=BASE.metadata)
        for value, found in [
            (None, []),
            (BASE.metadata, [BASE.metadata]),
            (BASE, [BASE.metadata]),
            (mapper, [mapper.metadata]),
            (types.SimpleNamespace(metadata=other), [other]),
            (several, [BASE.metadata, other]),
            ([BASE, other, (BASE.metadata,)], [BASE.metadata, other]),
            ({"a": BASE}, [BASE.metadata]),
        ]:
            with self.subTest(value=value):
                self.assertEqual(metadata_in(made(metadata=value)), found)

    def test_what_holds_none_is_named_with_what_to_write(self) -> None:
        module = types.ModuleType("blog.models")
        module.Base = BASE  # type: ignore[attr-defined]
        table = Table("item", MetaData(), Column("id", Integer))
        for value, words in [
            ("models.Base", r"metadata = Base\.metadata"),
            (module, r"metadata = models\.Base\.metadata"),
            (table, r"table\.metadata"),
            ([BASE, "x"], "'x'"),
            (lambda: BASE, "Base.metadata"),
            ((each for each in [BASE]), "Base.metadata"),
        ]:
            with self.subTest(value=value), self.assertRaisesRegex(ConfigurationError, words):
                metadata_in(made(metadata=value))


class EnginesTest(unittest.TestCase):
    def test_engines_and_functions_in_any_collection_are_taken(self) -> None:
        for value in (
            ENGINE,
            [ENGINE],
            (ENGINE,),
            {ENGINE},
            {"main": ENGINE},
            lambda: ENGINE,
            [lambda: [ENGINE]],
            [lambda: {None: ENGINE}],
            functools.partial(getattr, sys.modules[__name__], "ENGINE"),
            [lambda: {"a": ENGINE}.values()],
        ):
            with self.subTest(value=value):
                self.assertEqual(resolve_engines(value), [ENGINE])

    def test_what_cannot_be_an_engine_is_named_with_what_to_write(self) -> None:
        module = types.ModuleType("shop.db")
        module.main = ENGINE  # type: ignore[attr-defined]

        async def later() -> Any: ...

        for value, words in [
            ("postgresql+psycopg://app:secret@db.invalid/shop", r"db\.invalid/shop[\s\S]*create_engine"),
            (["shop.db.engine"], "write it without quotes: shop.db.engine"),
            (sessionmaker(ENGINE), r"engines = \[engine\]"),
            ([sessionmaker(ENGINE)()], r"engines = \[engine\]"),
            (module, r"engines = \[db\.main\]"),
            ([None], "lambda"),
            (later, "coroutine function"),
        ]:
            with self.subTest(value=value), self.assertRaisesRegex(ConfigurationError, words) as raised:
                resolve_engines(value)
            self.assertNotIn("secret", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
