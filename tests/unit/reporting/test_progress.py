"""A long start-up says once what it is doing; a short one says nothing."""

import contextlib
import io
import threading
import unittest
from contextlib import AbstractContextManager
from unittest import mock

from dbtestcase.reporting import progress


class DoingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(progress, "_progress", progress._Progress()))
        self.spoken = threading.Event()
        real = progress.say

        def say(text: str) -> None:
            real(text)
            self.spoken.set()

        self.enterContext(mock.patch.object(progress, "say", say))
        self.stderr = self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def patient(self) -> AbstractContextManager[object]:
        return mock.patch.object(progress, "PATIENCE", 60.0)

    def impatient(self) -> None:
        self.enterContext(mock.patch.object(progress, "PATIENCE", 0.001))

    def test_a_short_start_says_nothing(self) -> None:
        with self.patient(), progress.doing("migrating"):
            pass
        self.assertEqual(self.stderr.getvalue(), "")

    def test_a_long_one_names_the_innermost_part_in_one_line(self) -> None:
        with self.patient(), progress.doing("starting"), progress.doing("migrating"):
            progress._progress.speak()  # as when its time has come
        self.assertEqual(self.stderr.getvalue(), "dbtestcase: migrating ...\n")

    def test_it_is_said_once_in_a_process(self) -> None:
        self.impatient()
        for part in ("initialising", "migrating"):
            with progress.doing(part):
                self.assertTrue(self.spoken.wait(60))
        self.assertEqual(self.stderr.getvalue().count("\n"), 1)

    def test_parts_that_follow_each_other_share_the_second(self) -> None:
        progress._progress.spent = progress.PATIENCE
        with progress.doing("migrating"):
            self.assertTrue(self.spoken.wait(60))

    def test_no_thread_is_left_behind(self) -> None:
        before = {*threading.enumerate()}  # of which some may end
        with self.patient(), progress.doing("migrating"):
            self.assertTrue({*threading.enumerate()} - before)
        self.assertLessEqual({*threading.enumerate()}, before)
