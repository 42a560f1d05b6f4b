"""Looking less for garbage while what stays is made."""

import gc
import unittest
import weakref

from dbtestcase.reporting import collecting_less


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
