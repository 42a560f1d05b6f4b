"""What PostgreSQL refuses inside a transaction: its own error, with our note."""

import sqlalchemy as sa

from dbtestcase import DatabaseTest

ENGINES = {
    driver: sa.create_engine(f"postgresql+{driver}://nobody@nowhere.invalid/none") for driver in ("psycopg", "psycopg2")
}


class Refusals:
    metadata = sa.MetaData()
    notes = sa.Table("notes", metadata, sa.Column("text", sa.String))

    def refused(self, *statements):
        with self.assertRaises(sa.exc.DBAPIError) as caught, self.application.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        return "\n".join(caught.exception.orig.__notes__)

    def test_the_way_out_is_named(self):
        procedure = "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$"
        enum = ("CREATE TYPE mood AS ENUM ('sad')", "ALTER TYPE mood ADD VALUE 'ok'", "SELECT 'ok'::mood")
        for statements in (["VACUUM notes"], ["CREATE DATABASE more"], [procedure, "CALL p()"]):
            with self.subTest(statements[-1]):
                self.assertIn("TruncatingDatabaseTest", self.refused(*statements))
        with self.application.begin() as connection:
            connection.exec_driver_sql(enum[0])
        self.assertIn("TruncatingDatabaseTest", self.refused(*enum[1:]))


class PsycopgTest(Refusals, DatabaseTest):
    application = ENGINES["psycopg"]
    engines = [application]


class Psycopg2Test(Refusals, DatabaseTest):
    application = ENGINES["psycopg2"]
    engines = [application]
