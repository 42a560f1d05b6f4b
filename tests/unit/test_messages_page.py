"""The reference lists every error by its first line, with cause and way out."""

import unittest

from tests.support.messages import PAGE, messages, page


class MessagesPageTest(unittest.TestCase):
    def test_the_page_lists_every_error(self) -> None:
        written = PAGE.read_text("utf-8")
        missing = [line for line in page().splitlines() if line not in written]
        self.assertEqual(missing, [], "python -m tests.support.messages writes the page anew")

    def test_nearly_every_error_has_a_way_out(self) -> None:
        found = messages()
        self.assertGreater(len(found), 100)
        without = [message.what for message in found if not message.remedy]
        self.assertLess(len(without), 5, without)


if __name__ == "__main__":
    unittest.main()
