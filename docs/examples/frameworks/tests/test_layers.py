import unittest

from shop import add, names

from tests.database import life


class DatabaseLayer:
    @classmethod
    def setUp(cls):
        life.begin_class()

    @classmethod
    def testSetUp(cls):
        life.begin_test("a test of the layer")

    @classmethod
    def testTearDown(cls):
        life.end_test()

    @classmethod
    def tearDown(cls):
        life.end_class()


class LayerTest(unittest.TestCase):
    layer = DatabaseLayer

    def test_add(self):
        add("honey")
        self.assertEqual(names(), ["honey", "tea"])

    def test_nothing_is_left(self):
        self.assertEqual(life.test.tea.name, "tea")
        self.assertEqual(names(), ["tea"])
