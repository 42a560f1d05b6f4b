"""The support for inner suites counts right under every runner; what it says is what the other tests rely on."""

import tempfile
import unittest

from tests.support.runners import RUNNERS, run_python, run_suite, write_suite

SUITE = {
    "test_inner.py": """
        import unittest

        class Inner(unittest.TestCase):
            def test_passes(self): pass
            def test_passes_too(self): pass
            def test_fails(self): self.fail("on purpose")
            def test_raises(self): raise RuntimeError("on purpose")
            @unittest.skip("on purpose")
            def test_skipped(self): pass
        """
}


class RunSuiteTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def test_counts_are_the_same_under_every_runner(self) -> None:
        write_suite(self.folder, SUITE)
        for runner in RUNNERS:
            with self.subTest(runner):
                run_suite(self.folder, runner).expect(passed=2, failed=1, errors=1, skipped=1)

    def test_a_suite_without_failures_is_expected_to_exit_with_zero(self) -> None:
        write_suite(
            self.folder, {"test_inner.py": "import unittest\nclass T(unittest.TestCase):\n  def test(self): ..."}
        )
        for runner in ("unittest", "pytest"):
            with self.subTest(runner):
                run_suite(self.folder, runner).expect(passed=1)

    def test_unexpected_counts_raise_with_the_output(self) -> None:
        write_suite(self.folder, SUITE)
        outcome = run_suite(self.folder, "unittest")
        with self.assertRaisesRegex(AssertionError, r"(?s)\(3, 0, 0\), found \(2, 2, 1\).*RuntimeError: on purpose"):
            outcome.expect(passed=3)

    def test_a_suite_that_hangs_is_killed_with_its_children(self) -> None:
        hang = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import signal; signal.pause()'])"
        with self.assertRaisesRegex(AssertionError, "no end after 1 s"):
            run_python(["-c", hang], cwd=self.folder, timeout=1)
