"""Test classes that are run by tests, in this process."""

import unittest
from typing import Any


def run_inner(*classes: type[unittest.TestCase]) -> unittest.TestResult:
    """Run all tests of the classes, in the order of their names."""
    loader = unittest.TestLoader()
    result = unittest.TestResult()
    unittest.TestSuite([loader.loadTestsFromTestCase(cls) for cls in classes]).run(result)
    return result


class InnerRuns(unittest.TestCase):
    """What an outer test says about inner ones."""

    def assertPassed(self, *classes: type[unittest.TestCase], tests: int) -> None:
        """All tests of the classes pass, so many of them."""
        result = run_inner(*classes)
        problems = [text for _, text in result.errors + result.failures]
        self.assertEqual(problems, [], "\n".join(problems))
        self.assertEqual(result.testsRun, tests)
        self.assertEqual(result.skipped, [])

    def assertFailed(self, *classes: type[unittest.TestCase], pattern: str, tests: int | None = None) -> list[Any]:
        """Exactly one test fails, with a message that ``pattern`` is found in."""
        result = run_inner(*classes)
        problems = result.errors + result.failures
        self.assertEqual(len(problems), 1, "\n".join(text for _, text in problems))
        self.assertRegex(problems[0][1], pattern)
        if tests is not None:
            self.assertEqual(result.testsRun, tests)
        return problems
