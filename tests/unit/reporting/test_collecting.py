"""Looking less for garbage while what stays is made, and not at all at what stays until the end."""

import gc
import subprocess
import sys
import tempfile
import textwrap
import unittest
import weakref

from dbtestcase.reporting import collecting, collecting_less


class _Ring:
    def __init__(self) -> None:
        self.itself = self


class CollectingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.enable)
        self.addCleanup(gc.unfreeze)
        gc.unfreeze()

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


class EndingTest(unittest.TestCase):
    """The end of a process."""

    def end(self, lines: str) -> list[str]:
        """What a process prints that runs these lines; ``quick`` where it is not taken apart."""
        code = f"""
import atexit, gc, runpy
atexit.register(lambda: print("quick" if gc.get_freeze_count() else "as ever", flush=True))
atexit.register(runpy.run_path({collecting.__file__!r})["end_at_once"])
{textwrap.dedent(lines)}
"""
        command = [sys.executable, "-I", "-S", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stderr, "")
        return done.stdout.split("\n")[:-1]

    def test_what_does_nothing_at_its_end_is_not_taken_apart(self) -> None:
        self.assertEqual(self.end("import io; left = io.StringIO('text')"), ["quick"])

    def test_what_has_ended_does_nothing_any_more(self) -> None:
        self.assertEqual(
            self.end("""
                class Holder:
                    file, left = open(__import__("os").devnull), (each for each in "a")
                Holder.file.close()
                list(Holder.left)
            """),
            ["quick"],
        )
        self.assertEqual(
            self.end("""
                import io
                class Holder:
                    file = io.TextIOWrapper(io.BytesIO())
                Holder.file.detach()
            """),
            ["as ever"],
        )

    def test_what_does_something_at_its_end_does_it(self) -> None:
        self.assertEqual(
            self.end("""
                class Left:
                    def __del__(self): print("ended")

                class Holder:
                    left = Left()
            """),
            ["as ever", "ended"],
        )

    def test_what_nobody_holds_any_more_ends(self) -> None:
        self.assertEqual(
            self.end("""
                class Left:
                    def __init__(self): self.itself = self
                    def __del__(self): print("ended")
                Left()
            """),
            ["ended", "quick"],
        )

    def test_a_file_is_written(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            self.assertEqual(
                self.end(f"""
                    class Holder:
                        file = open({file.name!r}, "w")
                    Holder.file.write("text")
                """),
                ["as ever"],
            )
            self.assertEqual(file.read(), b"text")

    def test_a_generator_ends(self) -> None:
        self.assertEqual(
            self.end("""
                def generate():
                    try: yield
                    finally: print("ended")

                class Holder:
                    left = generate()
                next(Holder.left)
            """),
            ["as ever", "ended"],
        )

    def test_an_application_without_the_collector_ends_as_ever(self) -> None:
        self.assertEqual(self.end("gc.disable()"), ["as ever"])
