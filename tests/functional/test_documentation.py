"""Every code example in the documentation is run; what it promises is what happens."""

import tempfile
import unittest
from collections.abc import Callable

from tests.support.documents import Page, all_pages, read_page
from tests.support.runners import ROOT, run_suite, write_suite

PAGES = all_pages()


class CodeInTheDocumentationTest(unittest.TestCase):
    """One test for each page with a project is added below, so that parallel runners can share them out."""

    def test_every_python_block_is_run_or_at_least_valid(self) -> None:
        for page in PAGES:
            with self.subTest(page.name):
                self.assertEqual(page.without_caption, [], "these blocks have no caption, so that nothing runs them")
                for caption, code in page.excerpts.items():
                    compile(code, f"{page.name}: {caption}", "exec")

    def test_every_page_with_tests_says_what_becomes_of_them(self) -> None:
        for page in PAGES:
            if any(name.startswith("test_") for name in page.files):
                with self.subTest(page.name):
                    self.assertIsNotNone(page.promise)

    def test_the_readme_shows_valid_python(self) -> None:
        for code in read_page(ROOT / "README.rst").without_caption:
            compile(code, "README.rst", "exec")


def _test_for(page: Page) -> Callable[[unittest.TestCase], None]:
    def test(self: unittest.TestCase) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        assert page.promise is not None
        own = page.name == "tutorial.rst"  # where a reader has no server yet
        run_suite(write_suite(folder, page.files), page.runner, own_server=own).expect(**page.promise)

    test.__doc__ = f"The project of docs/{page.name} does what the page says."
    return test


for _page in PAGES:
    if _page.promise is not None:
        _name = "test_" + _page.name.removesuffix(".rst").replace("/", "_").replace("-", "_")
        setattr(CodeInTheDocumentationTest, _name, _test_for(_page))
