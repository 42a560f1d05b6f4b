import doctest
import unittest

import shop

from tests.database import life


def begin(test: doctest.DocTest) -> None:
    life.begin_test(test.name)


def end(test: doctest.DocTest) -> None:
    life.end_test()


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    tests.addTests(doctest.DocTestSuite(shop, setUp=begin, tearDown=end))
    return tests
