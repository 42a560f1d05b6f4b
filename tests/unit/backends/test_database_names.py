"""Names of databases, and which existing ones may be changed: decisions without a server."""

import os
import shutil
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.backends import names
from dbtestcase.backends.existing import check_safe, named_like_a_test
from dbtestcase.errors import UnsafeDatabase


class NamesTest(unittest.TestCase):
    def test_a_name_says_whose_it_is_and_is_never_given_twice(self) -> None:
        with mock.patch.object(socket, "gethostname", return_value="Build_Host.example.org"):
            made = {names.database_name("blog") for _ in range(100)}
        self.assertEqual(len(made), 100)
        for name in made:
            self.assertRegex(name, rf"^blog_build-host_{os.getpid()}_[0-9a-f]{{8}}$")

    def test_a_long_base_or_host_is_cut_at_a_character_and_the_rest_stays(self) -> None:
        with mock.patch.object(socket, "gethostname", return_value="h" * 80):
            for base in ("x" * 200, "é" * 200, "ж𝄞" * 100):
                name = names.database_name(base)
                self.assertLessEqual(len(name.encode()), 63)
                self.assertGreater(len(name.encode()), 59)
                self.assertTrue(names.is_database_name(name))

    def test_a_host_without_a_usable_name(self) -> None:
        for host in ("", "...", "гост"):
            with mock.patch.object(socket, "gethostname", return_value=host):
                self.assertTrue(names.is_database_name(names.database_name("blog")))

    def test_what_people_call_their_databases_is_not_taken_for_ours(self) -> None:
        for name in ("shop", "shop_test", "shop_prod_2024_backup", "shop_host_12", "shop_host_12_0123456"):
            self.assertFalse(names.is_database_name(name), name)
        for name in ("dbtestcase_template_shop", "template1", "x" + names.template_name("a")):
            self.assertFalse(names.is_template_name(name), name)
        self.assertTrue(names.is_template_name(names.template_name("a", "b")))

    def test_kept_rows_are_known_by_their_test_and_never_taken_for_a_leftover(self) -> None:
        for base in ("shop", "x" * 200, "é" * 200, ""):
            for test in (
                "app.PostTest.test_it",
                "app.Test.test_host_12_01234567",
                "t.T.test_" + "ж" * 100,
                "t.T.test:1",
            ):
                name = names.kept_name(base, test)
                with self.subTest(name):
                    self.assertLessEqual(len(name.encode()), 63)
                    self.assertTrue(names.is_kept_name(name))
                    self.assertFalse(names.is_database_name(name))
        self.assertRegex(names.kept_name("shop", "app.PostTest.test_it"), "^shop_kept_test_it_[0-9a-f]{6}$")
        self.assertEqual(len({names.kept_name("shop", "test_it") for _ in range(100)}), 100)
        self.assertFalse(names.is_kept_name("shop_kept_back"))

    def test_a_template_is_known_by_its_parts(self) -> None:
        self.assertEqual(names.template_name("a", "b"), names.template_name("a", "b"))
        self.assertNotEqual(names.template_name("a", "b"), names.template_name("ab", ""))
        self.assertLessEqual(len(names.template_name("x" * 1000)), 63)

    def test_templates_that_other_code_made_are_not_used(self) -> None:
        before = names.template_name("a")
        with mock.patch.object(names, "library_version", lambda: "0"):
            self.assertNotEqual(names.template_name("a"), before)

    def test_the_version_follows_the_code_that_builds(self) -> None:
        def version(package: Path) -> str:
            with mock.patch.object(names, "__file__", str(package / "backends" / "names.py")):
                return names.library_version.__wrapped__()

        package = Path(names.__file__).parent.parent
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "dbtestcase")
            shutil.copytree(package, copy)
            self.assertEqual(version(copy), names.library_version())
            with (copy / "migrations" / "project.py").open("a") as file:
                file.write("# changed")
            self.assertNotEqual(version(copy), names.library_version())


class GuardTest(unittest.TestCase):
    def test_test_is_a_word(self) -> None:
        for name in ("test", "Test", "shop_test", "test_shop", "shop-test", "shop.test", "test2", "a test b", "TEST_1"):
            self.assertTrue(named_like_a_test(name), name)

    def test_test_within_a_word_is_not(self) -> None:
        for name in ("latest", "contest", "attestation", "testimony", "shoptest", "tests", "testé", "тtest", "shop"):
            self.assertFalse(named_like_a_test(name), name)

    def test_empty_marked_or_named_like_a_test_is_safe(self) -> None:
        check_safe("url", "shop", relations=[], marked=False)
        check_safe("url", "shop", relations=["a"], marked=True)
        check_safe("url", "shop_test", relations=["a"], marked=False)

    def test_anything_else_is_refused_and_says_what_is_in_it(self) -> None:
        with self.assertRaises(UnsafeDatabase) as raised:
            check_safe("postgresql://ada@h/shop", "shop", relations=["d", "c", "b", "a"], marked=False)
        message = str(raised.exception)
        for part in ("'shop'", "postgresql://ada@h/shop", "a, b, c, …", "Likely cause", "What to do"):
            self.assertIn(part, message)
