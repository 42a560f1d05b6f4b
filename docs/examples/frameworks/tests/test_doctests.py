import doctest

import shop

from tests.database import life


def begin(test):
    life.begin_test(test.name)


def end(test):
    life.end_test()


def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite(shop, setUp=begin, tearDown=end))
    return tests
