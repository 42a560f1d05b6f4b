"""Looking less for garbage while what stays is made, and not at all at what stays until the end."""

import gc
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest
import weakref
from pathlib import Path
from unittest import mock

from dbtestcase.reporting import collecting, collecting_less
from tests.support.samples import a_share


class _Ring:
    def __init__(self) -> None:
        self.itself = self


class CollectingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.enable)
        self.addCleanup(gc.freeze)  # as tests/conftest.py does
        gc.unfreeze()
        self.enterContext(mock.patch.object(collecting, "_frozen", False))

    def test_garbage_is_found_afterwards(self) -> None:
        with collecting_less():
            gone = weakref.ref(_Ring())
        gc.collect()
        self.assertIsNone(gone())

    def test_what_was_made_is_not_looked_at_by_the_next_small_look(self) -> None:
        with collecting_less():
            made = [_Ring() for _ in range(100)]
        young = {id(each) for each in gc.get_objects(generation=0)}
        self.assertEqual([each for each in made if id(each) in young], [])
        self.assertEqual(gc.get_freeze_count(), 0)

    def test_settings_of_the_application_hold(self) -> None:
        gc.set_threshold(500, 5, 5)
        with collecting_less():
            self.assertGreater(gc.get_threshold()[0], 500)
        self.assertEqual(gc.get_threshold(), (500, 5, 5))
        gc.disable()
        with collecting_less():
            self.assertEqual(gc.get_threshold(), (500, 5, 5))
        self.assertFalse(gc.isenabled())
        gc.enable()
        gc.freeze()
        with collecting_less():
            pass
        self.assertGreater(gc.get_freeze_count(), 0)


# Each leaves something behind that a class holds; what is seen of its end is printed, or is in the file.
ENDS = {
    "an object with an end": """
        class Left:
            def __del__(self): print("ended")
        class Holder:
            left = Left()
        """,
    "a text file": """
        class Holder:
            file = open(path, "w")
        Holder.file.write("text")
        """,
    "a compressed file": """
        import gzip
        class Holder:
            file = gzip.open(path, "wt")
        Holder.file.write("text")
        """,
    "an archive": """
        import zipfile
        class Holder:
            file = zipfile.ZipFile(path, "w")
        Holder.file.writestr("name", "text")
        """,
    "a generator": """
        def generate():
            try: yield
            finally: print("ended")
        class Holder:
            left = generate()
        next(Holder.left)
        """,
    "a temporary file": """
        import tempfile
        class Holder:
            file = tempfile.NamedTemporaryFile(dir=folder)
        """,
    "a temporary folder": """
        import tempfile
        class Holder:
            made = tempfile.TemporaryDirectory(dir=folder)
        """,
    "a socket": """
        import socket
        class Holder:
            socket = socket.socket()
        """,
    "a loop with a task": """
        import asyncio
        class Holder:
            loop = asyncio.new_event_loop()
        Holder.task = Holder.loop.create_task(asyncio.sleep(1))
        """,
    "a process": """
        import subprocess, sys
        class Holder:
            process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
        """,
    "a connection to SQLite": """
        import sqlite3
        class Holder:
            connection = sqlite3.connect(path)
        Holder.connection.execute("PRAGMA journal_mode = WAL")
        Holder.connection.execute("CREATE TABLE t (id)")
        Holder.connection.execute("INSERT INTO t VALUES (1)")
        """,
    "a detached stream": """
        import io
        class Holder:
            file = io.TextIOWrapper(io.BytesIO())
        Holder.file.detach()
        """,
    "garbage": """
        class Left:
            def __init__(self): self.itself = self
            def __del__(self): print("ended")
        Left()
        """,
    "a finalizer that is not for the end": """
        import weakref
        class Left: pass
        class Holder:
            left = Left()
        Holder.finalizer = weakref.finalize(Holder.left, print, "ended")
        Holder.finalizer.atexit = False
        """,
}


class EndingTest(unittest.TestCase):
    """The end of a process."""

    def end(self, lines: str, before: str = "") -> tuple[str, str, dict[str, int]]:
        """What a process prints, what it is warned of, and which files it leaves, with their sizes.

        :param before: what runs first, and what it registers for the end last.
        """
        with tempfile.TemporaryDirectory() as folder:
            code = f"import atexit, gc, runpy; folder = {folder!r}; path = folder + '/file'; {before}\n"
            command = [sys.executable, "-I", "-X", "dev", "-c", code + textwrap.dedent(lines)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            sizes = {each.name: each.stat().st_size for each in Path(folder).iterdir()}
            told = re.sub(rf"0x[0-9a-f]+|pid=\d+|subprocess \d+|{folder}|tmp\w+|fd=\d+", "…", done.stderr)
            return done.stdout, told, sizes

    ours = f"atexit.register(runpy.run_path({collecting.__file__!r})['end_at_once'])"
    tells = f"atexit.register(lambda: print('quick' if gc.get_freeze_count() else 'as ever')); {ours}"

    def test_what_does_nothing_at_its_end_is_not_taken_apart(self) -> None:
        ended = """
            import io
            class Holder:
                itself, text, file, left = object(), io.StringIO("text"), open(path, "w"), (each for each in "a")
            Holder.file.close()
            list(Holder.left)
            """
        self.assertEqual(self.end(ended, self.tells), ("quick\n", "", {"file": 0}))
        self.assertEqual(self.end(ENDS["garbage"], self.tells), ("ended\nquick\n", "", {}))

    def test_what_does_something_at_its_end_does_it(self) -> None:
        for name, lines in a_share(ENDS.items(), 3):
            with self.subTest(name):
                self.assertEqual(self.end(lines, self.ours), self.end(lines))

    def test_an_application_without_the_collector_ends_as_ever(self) -> None:
        self.assertEqual(self.end("gc.disable()", self.tells)[0], "as ever\n")
