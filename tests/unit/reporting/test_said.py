"""What a server has said is read from the errors of all drivers, and of anybody else's."""

import unittest
from typing import Any

from dbtestcase.reporting import says


def error(*args: Any, **attributes: Any) -> Exception:
    made = Exception(*args)
    vars(made).update(attributes)
    return made


class SaysTest(unittest.TestCase):
    def test_codes_and_words_of_all_drivers(self) -> None:
        for each in (
            error(sqlstate="53100"),
            error(pgcode="53100"),
            error({"C": "53100", "M": "no room"}),
            error(1021, "Disk full"),
            error("could not write: No space left on device"),
            OSError(28, "No space left on device"),
            error("wrapped", orig=error("inner", orig=error(sqlstate="53100"))),
        ):
            with self.subTest(each):
                self.assertTrue(says(each, {"53100", 1021}, ["no space left"]))
        self.assertFalse(says(error("55P03", sqlstate="55P03"), {"53100"}))

    def test_an_error_of_the_application_keeps_what_it_likes_in_orig(self) -> None:
        for orig in ("text", {"a": 1}, 53100, object()):
            self.assertFalse(says(error("mine", orig=orig), {"53100"}, ["full"]))
        self.assertFalse(says(None, {"53100"}))
        itself = error("mine")
        vars(itself)["orig"] = itself
        self.assertFalse(says(itself, {"53100"}))

    def test_nor_is_it_asked_for_its_text_where_a_code_is_looked_for(self) -> None:
        class WithoutText(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        self.assertFalse(says(WithoutText(3), {"53100"}))
