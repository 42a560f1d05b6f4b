"""Under every runner, what a module and a run have made is closed once, by the process that made it."""

import collections
import tempfile
import unittest
from pathlib import Path

from tests.support.runners import RUNNERS, run_suite, write_suite

MODULE = """
    import contextlib, os, unittest
    from dbtestcase.cases import scopes

    @contextlib.contextmanager
    def thing(scope, name):
        note(f"made {scope} {name}")
        yield name
        note(f"closed {scope} {name}")

    def note(text):
        with open(os.environ["NOTES"], "a") as stream:
            stream.write(f"{os.getpid()} {text}\\n")

    # as a runner that imports and then forks would have it
    scopes.of_run("imported", lambda: thing("run", "imported"))

    class Base(unittest.TestCase):
        def setUp(self):
            cls = type(self)
            scopes.module_started(cls.__module__)
            name = scopes.of_run("r", lambda: thing("run", f"of {os.getpid()}"))
            self.assertEqual(name, f"of {os.getpid()}")
            scopes.of_module(cls.__module__, "m", lambda: thing("module", cls.__module__))

        def test_one(self): pass
        def test_two(self): pass

    class First(Base): pass
    class Second(Base): pass
    del Base
"""


class ScopesUnderRunnersTest(unittest.TestCase):
    def test_each_thing_is_closed_exactly_once(self) -> None:
        for runner in RUNNERS:
            if runner == "unittest-parallel-test":
                continue  # it terminates its workers: no hook of theirs runs
            folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
            write_suite(folder, {"test_a.py": MODULE, "test_b.py": MODULE})
            notes = folder / "notes"
            with self.subTest(runner):
                run_suite(folder, runner, env={"NOTES": str(notes)}).expect(passed=8)
                counts = collections.Counter(notes.read_text(encoding="utf-8").splitlines())
                made = {note.replace("made", "closed"): n for note, n in counts.items() if " made " in note}
                closed = {note: n for note, n in counts.items() if " closed " in note}
                self.assertGreater(len(made), 3)
                if runner == "unittest-parallel-class":  # terminates its workers as well, at times before they end
                    self.assertLessEqual(closed.items(), made.items())
                else:
                    self.assertEqual(closed, made)
