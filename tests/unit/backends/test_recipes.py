"""What a recipe can do without a database is done while one is made."""

import threading
import unittest

from sqlalchemy import URL

from dbtestcase.backends.recipes import preparing


class Imports:
    label = "imports"

    def __init__(self, fails: bool = False) -> None:
        self.made, self.prepared, self.fails = threading.Event(), False, fails

    def fingerprint(self) -> str:
        return ""

    def build(self, url: URL) -> None: ...

    def prepare(self) -> None:
        assert self.made.wait(60)
        self.prepared = True
        if self.fails:
            raise ImportError("later, by build()")


class PreparingTest(unittest.TestCase):
    def test_the_recipe_prepares_itself_beside_the_body(self) -> None:
        for fails in (False, True):
            recipe = Imports(fails)
            with self.subTest(fails=fails), preparing(recipe):
                recipe.made.set()  # it would wait for this for ever, were it not beside
            self.assertTrue(recipe.prepared)

    def test_it_is_over_when_the_body_fails(self) -> None:
        recipe, before = Imports(), {*threading.enumerate()}
        with self.assertRaises(KeyError), preparing(recipe):
            recipe.made.set()
            raise KeyError("the server is lost")
        self.assertTrue(recipe.prepared)
        self.assertLessEqual({*threading.enumerate()}, before)  # some may have ended


if __name__ == "__main__":
    unittest.main()
