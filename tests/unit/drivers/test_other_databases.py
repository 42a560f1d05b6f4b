"""The databases that a statement of MySQL's names; a column's table is none."""

import unittest

from dbtestcase.drivers.mysql.other_databases import names_database

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
    "UPDATE basket, shop.note SET note.text = basket.text",
    "DELETE FROM basket, shop.note USING basket JOIN note",
    "DROP TABLE basket, shop.note",
    "SELECT * FROM (shop.note, basket)",
    "SELECT shop.id FROM basket, shop.shop",
    "SELECT * FROM basket STRAIGHT_JOIN shop.note",
    "SELECT shop.id FROM note AS shop STRAIGHT_JOIN shop.note",
    "UPDATE shop, basket, shop.note SET shop.text = 1",
    "DROP TABLE shop, shop.note",
    "LOCK TABLES shop.note WRITE",
    "CREATE INDEX by_text ON shop.note (text)",
    "ALTER TABLE note RENAME shop.note",
    "CREATE TRIGGER t BEFORE INSERT ON shop.note FOR EACH ROW SET NEW.id = 1",
    "ALTER TABLE basket ADD FOREIGN KEY (note) REFERENCES shop.note (id)",
    "GRANT ALL ON shop.* TO 'x'@'y'",
    "HANDLER shop.note OPEN",
    "SELECT shop.make_note(1)",
    "SET @x = shop.make_note(1)",
    "INSERT INTO`shop`.`note` VALUES (1)",
    "SELECT `a#b`, `it's` FROM shop.note WHERE text = 'x'",
    'INSERT INTO "shop" . "note" VALUES (1)',
    "SELECT EXTRACT(YEAR FROM (SELECT made FROM shop.note))",
    "PREPARE s FROM 'INSERT INTO shop.note VALUES (1)'",
    "EXECUTE IMMEDIATE 'INSERT INTO shop.note VALUES (1)'",
    "SELECT * FROM--\nshop.note",
    "--\nDELETE FROM shop.note",
    "SELECT * FROM /*!50000 shop */ . note",
    "SELECT 2*/* it's */3 FROM shop.note",
    'USE "shop"',
    'DROP DATABASE "shop"',
    "SELECT shop.make_note(shop.id) FROM shop",
    "SELECT `shop` . `make_note` (1), shop.id FROM shop",
    "ALTER TABLE basket ADD FOREIGN KEY (shop) REFERENCES shop.note (id)",
    "HANDLER shop.note READ NEXT WHERE shop = 1",
    "SHOW FULL TABLES FROM `shop`",
    "SHOW COLUMNS FROM note FROM shop",
    "SHOW INDEX FROM note IN shop",
    "SHOW TABLE STATUS FROM shop",
)
NOT_NAMED = (
    "SELECT shop.id, shop.text FROM note AS shop WHERE shop.id = 1",
    "SELECT * FROM note JOIN shop ON shop.id = note.id",
    "INSERT INTO note (text) VALUES ('INSERT INTO shop.note')",
    'INSERT INTO note (text) VALUES ("it\\"s FROM shop.note")',
    "INSERT INTO shop (id) VALUES (1) ON DUPLICATE KEY UPDATE shop.text = 1",
    "SELECT EXTRACT(YEAR FROM shop.made) FROM shop",
    "SELECT REPLACE(shop.text, 'a', 'b') FROM shop",
    "SELECT TRIM(BOTH 'x' FROM shop.text), SUBSTRING('abc' FROM shop.id) FROM shop",
    "SELECT TRIM(LEADING LOWER('X') FROM shop.text) FROM shop",
    "UPDATE shop SET id = 1, shop.text = 2 ORDER BY shop.id, shop.text",
    "DELETE FROM shop RETURNING shop.id, shop.text",
    "INSERT INTO shop (id) VALUES (1) ON DUPLICATE KEY UPDATE id = 1, shop.text = 2",
    "SELECT shop.id, shop.text FROM shop GROUP BY shop.id, shop.text",
    "DELETE shop.* FROM note AS shop JOIN basket",
    "SELECT shop.id FROM beside.shop, (SELECT 1) AS b",
    "DELETE shop FROM shop JOIN note ON note.id = shop.id",
    "WITH shop AS (SELECT 1 AS id) SELECT shop.* FROM shop",
    'SELECT "shop"."id" FROM note AS "shop"',
    'SELECT "shop"."id" FROM "shop"',
    'INSERT INTO note (text) VALUES ("shop")',
    "SELECT STRAIGHT_JOIN shop.id FROM note AS shop",
    "SELECT DISTINCT HIGH_PRIORITY shop.id FROM note AS shop",
    "SELECT shop.id FROM shop WHERE shop.id IN(1) AND shop.text AND(1)",
    "SHOW COLUMNS FROM shop FROM beside",
    "SHOW INDEX FROM shop",
    "SHOW TABLES FROM beside LIKE 'shop'",
    "SELECT @shop.x",
    "SELECT 1 FROM workshop.note",
    "SELECT 1 -- FROM shop.note",
    "SELECT 1 /* FROM shop.note */",
)


class NamedDatabasesTest(unittest.TestCase):
    def test_databases_are_named(self) -> None:
        for text in NAMED:
            with self.subTest(text):
                self.assertTrue(names_database(text, "shop"))
                self.assertTrue(names_database(text + " " * 600, "shop"))
                self.assertTrue(names_database(text.replace("shop", "SHOP").encode(), "Shop"))

    def test_one_is_named_behind_many_values(self) -> None:
        values = ", ".join(["('it''s one of shop.note')"] * 4000)
        self.assertFalse(names_database(f"INSERT INTO note (text) VALUES {values}", "shop"))
        self.assertTrue(names_database(f"INSERT INTO note (text) VALUES {values}; DELETE FROM shop.note", "shop"))

    def test_columns_strings_and_comments_name_none(self) -> None:
        for text in NOT_NAMED:
            with self.subTest(text):
                self.assertFalse(names_database(text, "shop"))


if __name__ == "__main__":
    unittest.main()
