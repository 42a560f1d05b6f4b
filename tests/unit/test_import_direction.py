"""Imports run one way: from the floors of the house down, never in a circle."""

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path

import dbtestcase

PACKAGE = Path(dbtestcase.__file__).parent

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


def unit_of(module: str) -> str:
    """``drivers.psycopg`` → ``drivers``: a package counts as one module."""
    return module.partition(".")[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of what a file imports at run time (also inside functions), with their lines."""
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    package = module.removesuffix(".__init__") if path.name == "__init__.py" else module.rpartition(".")[0]
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            if source == "dbtestcase":  # from . import errors
                yield from ((f"dbtestcase.{alias.name}", node.lineno) for alias in node.names)
            else:
                for alias in node.names:  # from .x import y: y may be a module itself
                    inner = PACKAGE.parent.joinpath(*source.split("."), f"{alias.name}.py")
                    yield (f"{source}.{alias.name}" if inner.is_file() else source, node.lineno)
        pending.extend(ast.iter_child_nodes(node))


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


class ImportDirectionTest(unittest.TestCase):
    def test_no_module_imports_a_sibling_or_one_above_it(self) -> None:
        wrong = []
        for path in PACKAGE.rglob("*.py"):
            importer = unit_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
            if importer == "__init__":
                continue
            for name, line in imports(path):
                if name.startswith("dbtestcase."):
                    imported = unit_of(name.removeprefix("dbtestcase."))
                    if not may_import(importer, imported):
                        wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {importer} imports {imported}")
        self.assertEqual(wrong, [])

    def test_optional_dependencies_are_imported_only_by_their_own_module(self) -> None:
        wrong = []
        for path in PACKAGE.rglob("*.py"):
            importer = unit_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
            for name, line in imports(path):
                if importer not in ONLY_IMPORTERS.get(unit_of(name), {importer}):
                    wrong.append(f"{path.relative_to(PACKAGE)}:{line}: imports {name}")
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
        modules = {}
        for path in PACKAGE.rglob("*.py"):
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
            modules[name] = path
        graph = {
            name: {imported for imported, _ in imports(path) if imported in modules and imported != name}
            for name, path in modules.items()
        }
        self.assertEqual(circle(graph), [])

    def test_few_things_stand_at_the_top(self) -> None:
        top = {p.name for p in PACKAGE.iterdir() if p.name != "__pycache__"}
        self.assertLessEqual(len(top), 16, sorted(top))  # fifteen, and py.typed

    def test_every_module_opens_with_a_line_that_says_what_it_is_for(self) -> None:
        for path in PACKAGE.rglob("*.py"):
            with self.subTest(path.name):
                first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
                self.assertRegex(first, r"\w.*[.:)]$")
