from importlib.resources import files

from library import engine, lend, on_the_shelf
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dbtestcase import DatabaseTest


def sql(name: str) -> str:
    return files("library").joinpath(name).read_text(encoding="utf-8")


class LibraryTest(DatabaseTest):
    engines = [engine]

    @classmethod
    def load_initial_schema(cls, connection: Connection) -> None:
        # the driver's own cursor: neither % nor : mean anything there
        connection.connection.cursor().execute(sql("schema.sql"))

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        session.execute(text(sql("books.sql")))

    def test_lend(self) -> None:
        lend("Emma", "Ada")
        self.assertEqual(on_the_shelf(), ["Ulysses", "Walden"])

    def test_the_trigger_is_there(self) -> None:
        lend("Emma", "Ada")
        with self.assertRaisesRegex(DBAPIError, "Ada has a book already"):
            lend("Walden", "Ada")
        self.assertEqual(on_the_shelf(), ["Ulysses", "Walden"])

    def test_nothing_is_left(self) -> None:
        self.assertEqual(on_the_shelf(), ["Emma", "Ulysses", "Walden"])
