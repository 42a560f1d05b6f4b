import unittest

from shop import add, names
from testresources import ResourcedTestCase, TestResourceManager

from tests.database import life


class Database(TestResourceManager):
    def make(self, dependency_resources):
        return life.begin_test("a test with resources")

    def clean(self, resource):
        life.end_test()

    def isDirty(self):  # for the next test it is made anew
        return True


class ResourceTest(ResourcedTestCase, unittest.TestCase):
    resources = [("db", Database())]

    @classmethod
    def tearDownClass(cls):
        life.end_class()

    def test_add(self):
        add("honey")
        self.assertEqual(names(), ["honey", "tea"])

    def test_nothing_is_left(self):
        self.assertEqual(self.db.tea.name, "tea")
        self.assertEqual(names(), ["tea"])
