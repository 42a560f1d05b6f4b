import unittest
from typing import Literal

from shop import add, names
from testresources import ResourcedTestCase, TestResourceManager

from tests.database import Shop, life


class Database(TestResourceManager):
    def make(self, dependency_resources: object) -> Shop:
        return life.begin_test("a test with resources")

    def clean(self, resource: Shop) -> None:
        life.end_test()

    def isDirty(self) -> Literal[True]:  # for the next test it is made anew
        return True


class ResourceTest(ResourcedTestCase, unittest.TestCase):
    resources = [("db", Database())]
    db: Shop

    @classmethod
    def tearDownClass(cls) -> None:
        life.end_class()

    def test_add(self) -> None:
        add("honey")
        self.assertEqual(names(), ["honey", "tea"])

    def test_nothing_is_left(self) -> None:
        self.assertEqual(self.db.tea.name, "tea")
        self.assertEqual(names(), ["tea"])
