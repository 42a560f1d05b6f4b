"""A driver of MySQL that is not installed: the error says what to install."""

import unittest
from unittest import mock

from sqlalchemy import make_url

from dbtestcase.backends.mysql.admin import Admin
from dbtestcase.errors import ConfigurationError, MissingExtra


class MissingDriverTest(unittest.TestCase):
    def test_the_distribution_is_named(self) -> None:
        for url, module, remedy in (
            ("mysql+mysqldb://u:secret@host/app", "MySQLdb", "pip install mysqlclient"),
            ("mysql+mysqlconnector://u:secret@host/app", "mysql", "pip install mysql-connector-python"),
            ("mysql+pymysql://u:secret@host/app", "pymysql", "pip install 'dbtestcase[mysql]'"),
        ):
            with self.subTest(url), mock.patch.dict("sys.modules", {module: None}):
                with self.assertRaises(ConfigurationError) as caught:
                    Admin(make_url(url))
                self.assertIn(f"'{module}", caught.exception.what)
                self.assertIn(remedy, caught.exception.remedy)
                self.assertNotIn("secret", str(caught.exception))
                self.assertEqual(isinstance(caught.exception, MissingExtra), module == "pymysql")


if __name__ == "__main__":
    unittest.main()
