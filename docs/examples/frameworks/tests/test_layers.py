import unittest

from shop import add, names

from tests.database import Shop, life


class DatabaseLayer:
    test: Shop

    @classmethod
    def setUp(cls) -> None:
        life.begin_class()

    @classmethod
    def testSetUp(cls) -> None:
        cls.test = life.begin_test("a test of the layer")

    @classmethod
    def testTearDown(cls) -> None:
        life.end_test()

    @classmethod
    def tearDown(cls) -> None:
        life.end_class()


class LayerTest(unittest.TestCase):
    layer = DatabaseLayer

    def test_add(self) -> None:
        add("honey")
        self.assertEqual(names(), ["honey", "tea"])

    def test_nothing_is_left(self) -> None:
        self.assertEqual(DatabaseLayer.test.tea.name, "tea")
        self.assertEqual(names(), ["tea"])
