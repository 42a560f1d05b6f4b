"""The databases that a statement of MySQL's names; a column's table is none."""

import unittest

from dbtestcase.drivers.mysql.other_databases import named_databases

NAMED = (
    "USE shop",
    "use `shop`;",
    "SELECT * FROM shop.note",
    "SELECT * FROM note JOIN\n shop.note AS n ON n.id = note.id",
    "INSERT INTO shop.note VALUES (1)",
    "INSERT IGNORE shop.note VALUES (1)",
    "INSERT INTO note SELECT * FROM `shop`.`note`",
    "REPLACE shop.note VALUES (1)",
    "UPDATE shop.note SET text = 1",
    "UPDATE LOW_PRIORITY shop . note SET text = 1",
    "DELETE FROM shop.note",
    "TRUNCATE shop.note",
    "TRUNCATE TABLE shop.note",
    "CREATE TABLE IF NOT EXISTS shop.note (id int)",
    "ALTER TABLE /* that one */ shop.note ADD x int",
    "DROP TABLE IF EXISTS shop.note",
    "RENAME TABLE note TO shop.note",
    "CALL shop.clear()",
    "CREATE VIEW shop.all_notes AS SELECT 1",
    "DROP DATABASE IF EXISTS shop",
    "CREATE SCHEMA shop",
    "-- first\nSELECT 1; DELETE FROM shop.note",
)
NOT_NAMED = (
    "SELECT shop.id, shop.text FROM note AS shop WHERE shop.id = 1",
    "SELECT * FROM note JOIN shop ON shop.id = note.id",
    "INSERT INTO note (text) VALUES ('INSERT INTO shop.note')",
    'INSERT INTO note (text) VALUES ("it\\"s FROM shop.note")',
    "INSERT INTO shop (id) VALUES (1) ON DUPLICATE KEY UPDATE shop.text = 1",
    "SELECT EXTRACT(YEAR FROM shop.made) FROM shop",
    "SELECT REPLACE(shop.text, 'a', 'b') FROM shop",
    "SELECT 1 -- FROM shop.note",
    "SELECT 1 /* FROM shop.note */",
)


class NamedDatabasesTest(unittest.TestCase):
    def test_databases_are_named(self) -> None:
        for text in NAMED:
            with self.subTest(text):
                self.assertEqual(named_databases(text), {"shop"})
                self.assertEqual(named_databases(text + " " * 600), {"shop"})

    def test_columns_strings_and_comments_name_none(self) -> None:
        for text in NOT_NAMED:
            with self.subTest(text):
                self.assertNotIn("shop", named_databases(text))


if __name__ == "__main__":
    unittest.main()
