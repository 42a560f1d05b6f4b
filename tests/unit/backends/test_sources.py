"""The digest of what a function does: what changes it, what does not, and that every process agrees."""

import datetime
import functools
import importlib
import sys
import tempfile
import textwrap
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from dbtestcase.backends import sources
from tests.support.runners import ROOT, run_python


class ProjectTestCase(unittest.TestCase):
    """A small project on the path, written anew for each digest."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(mock.patch.object(sys, "path", [str(self.folder), *sys.path]))
        self.enterContext(mock.patch.object(sys, "dont_write_bytecode", True))
        self.addCleanup(sources._is_project.cache_clear)

    def load(self, **modules: str) -> types.ModuleType:
        """The module ``hook`` of a project of these modules."""
        for name, text in modules.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        sources._is_project.cache_clear()
        self.addCleanup(lambda: [sys.modules.pop(name, None) for name in modules])
        return importlib.import_module("hook")

    def digest(self, **modules: str) -> str:
        return sources.digest_of(self.load(**modules).load)


class WhatCountsTest(ProjectTestCase):
    def changes(self, before: str, after: str, name: str = "hook", **others: str) -> bool:
        first = self.digest(**others | {name: before})
        return first != self.digest(**others | {name: after})

    def test_the_code_of_the_function(self) -> None:
        self.assertTrue(self.changes("def load(s): s.add(1)", "def load(s): s.add(2)"))
        self.assertTrue(self.changes("def load(s): s.add(1)", "def load(s): s.merge(1)"))
        self.assertTrue(self.changes("def load(s, n=1): s.add(n)", "def load(s, n=2): s.add(n)"))
        self.assertTrue(self.changes("def load(s, *, n=1): s.add(n)", "def load(s, *, n=2): s.add(n)"))
        self.assertTrue(
            self.changes("load = lambda s: [s.add(n) for n in (1, 2)]", "load = lambda s: [s.add(n) for n in (1, 3)]")
        )

    def test_not_comments_blank_lines_or_what_else_is_in_the_file(self) -> None:
        self.assertFalse(
            self.changes("def load(s): s.add(1)", "other = 2\n\n\ndef load(s):\n    # a comment\n\n    s.add(1)\n")
        )

    def test_functions_that_it_calls_however_deep(self) -> None:
        text = """
            def load(s): first(s)
            def first(s): second(s)
            def second(s): s.add({})
            def unused(): return {}
        """
        self.assertTrue(self.changes(text.format(1, 1), text.format(2, 1)))
        self.assertFalse(self.changes(text.format(1, 1), text.format(1, 2)))

    def test_functions_of_other_modules_of_the_project(self) -> None:
        for hook in (
            "import rows\ndef load(s): rows.fill(s)",
            "from rows import fill\ndef load(s): fill(s)",
            "def load(s):\n    from rows import fill\n    fill(s)",
            "def load(s):\n    import rows\n    rows.fill(s)",
        ):
            with self.subTest(hook):
                self.assertTrue(self.changes("def fill(s): s.add(1)", "def fill(s): s.add(2)", "rows", hook=hook))

    def test_plain_data_that_it_names(self) -> None:
        hook = "import rows\ndef load(s): s.add(rows.DATA)"
        for before, after in (
            ("[('de', 'Germany')]", "[('de', 'Deutschland')]"),
            ("{'a': {1, 2}}", "{'a': {1, 3}}"),
            ("__import__('datetime').date(2020, 1, 1)", "__import__('datetime').date(2020, 1, 2)"),
            ("__import__('decimal').Decimal('1.0')", "__import__('decimal').Decimal('1.00')"),
        ):
            with self.subTest(before):
                self.assertTrue(self.changes(f"DATA = {before}", f"DATA = {after}", "rows", hook=hook))

    def test_methods_and_attributes_reached_through_the_class(self) -> None:
        text = """
            class Base:
                rows = [{}]
                @classmethod
                def fill(cls, s): s.add(cls.helper({}))
                @staticmethod
                def helper(n): return n + {}
                def test_something(self): return {}
            class Case(Base):
                @classmethod
                def load(cls, s): cls.fill(s); s.add(cls.rows)
            load = Case.load
        """
        base = self.digest(hook=text.format(0, 0, 0, 0))
        self.assertNotEqual(self.digest(hook=text.format(1, 0, 0, 0)), base)
        self.assertNotEqual(self.digest(hook=text.format(0, 1, 0, 0)), base)
        self.assertNotEqual(self.digest(hook=text.format(0, 0, 1, 0)), base)
        self.assertEqual(self.digest(hook=text.format(0, 0, 0, 1)), base)

    def test_closures_decorators_partials_and_callable_objects(self) -> None:
        for text in (
            "def make(n):\n    def load(s): s.add(n)\n    return load\nload = make({})",
            "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(s): f(s); f(s)\n    return g\n"
            "@twice\ndef load(s): s.add({})",
            "import functools\ndef fill(n, s): s.add(n)\nload = functools.partial(fill, {})",
            "class Load:\n    def __call__(self, s): s.add({})\nload = Load()",
        ):
            with self.subTest(text):
                self.assertTrue(self.changes(text.format(1), text.format(2)))

    def test_circles_end(self) -> None:
        self.assertTrue(self.digest(hook="def load(s): other(s)\ndef other(s): load(s)\nL = []\nL.append(L)"))

    def test_an_import_that_fails_is_left_to_the_hook(self) -> None:
        self.assertTrue(self.digest(hook="def load(s):\n    import no_such_module_anywhere"))

    def test_a_function_of_a_text_that_was_executed_counts_by_its_code(self) -> None:
        hook = "made = {{}}\nexec('def fill(s): return {}', made)\nfill = made['fill']\ndef load(s): fill(s)"
        one, other, again = (self.digest(hook=hook.format(number)) for number in (1, 2, 1))
        self.assertEqual(one, again)
        self.assertNotEqual(one, other)


class DeterminismTest(ProjectTestCase):
    def test_every_process_agrees(self) -> None:
        self.load(
            hook="""
                import rows
                NAMES = {"a", "b", "c", "d"}
                MAP = {"k": frozenset("xyz")}
                def load(s):
                    if s in {"p", "q", "r", "t"}:
                        rows.fill(s, NAMES, MAP)
            """,
            rows="class Thing:\n    kinds = {'u', 'v', 'w'}\n    def make(self): return object()\n"
            "def fill(s, *a): Thing().make()",
        )
        program = "import hook; from dbtestcase.backends import sources; print(sources.digest_of(hook.load))"
        digests = set()
        for seed in ({"PYTHONHASHSEED": "0"}, {}):  # by default there is another for each process
            done = run_python(["-c", program], cwd=ROOT, env={"PYTHONPATH": f"{self.folder}:{ROOT}"} | seed)
            done.check_returncode()
            digests.add(done.stdout)
        self.assertEqual(len(digests), 1)


class PlainTest(unittest.TestCase):
    def test_what_is_plain_data(self) -> None:
        for value in (None, 1, "a", b"a", 1.5, (1, [2, {3: {4}}]), datetime.date.today()):
            self.assertTrue(sources.is_plain(value), value)
        thing: Callable[[], object] = functools.partial(print)
        for value in (object(), [object()], {"a": thing}, thing):
            self.assertFalse(sources.is_plain(value), value)
