"""Which statements may see which unfinished writes."""

import unittest

from dbtestcase.sandbox.relations import Relations
from dbtestcase.sandbox.statements import classify

ROWS = [
    *(("table", name, "") for name in ("author", "post", "tag", "audit", "measurement", "measurement_2026")),
    ("view", "front_page", ""),
    ("function", "publish", ""),
    ("trigger", "audit", ""),
    ("cascade", "author", "post"),
    ("check", "post", "author"),
    ("check", "author", "post"),
    ("child", "measurement", "measurement_2026"),
]


class RelationsTest(unittest.TestCase):
    def setUp(self):
        self.relations = Relations(ROWS)

    def seen(self, sql):
        return self.relations.seen(classify(sql))

    def written(self, *sql):
        return self.relations.written([classify(each) for each in sql])

    def test_a_read_sees_the_tables_that_it_names(self):
        self.assertEqual(self.seen('SELECT * FROM public."post" p'), {"post"})
        self.assertEqual(self.seen("SELECT 1"), frozenset())

    def test_a_view_or_a_function_may_see_anything(self):
        self.assertIsNone(self.seen("SELECT * FROM front_page"))
        self.assertIsNone(self.seen("SELECT publish(1) FROM tag"))

    def test_a_partition_and_its_parent_are_seen_together(self):
        self.assertEqual(self.seen("SELECT * FROM measurement"), {"measurement", "measurement_2026"})
        self.assertEqual(self.seen("SELECT * FROM measurement_2026"), {"measurement", "measurement_2026"})

    def test_a_delete_may_change_what_it_cascades_to(self):
        self.assertEqual(self.written("DELETE FROM author"), {"author", "post"})
        self.assertEqual(self.written("INSERT INTO tag VALUES (1)", "DELETE FROM post"), {"tag", "post"})

    def test_an_insert_sees_the_rows_that_its_foreign_keys_are_checked_against(self):
        self.assertIn("author", self.seen("INSERT INTO post VALUES (1)"))

    def test_a_table_with_triggers_may_change_anything(self):
        self.assertIsNone(self.written("INSERT INTO audit VALUES (1)"))
        self.assertIsNone(self.seen("INSERT INTO audit VALUES (1)"))

    def test_what_is_no_plain_write_may_change_anything(self):
        for sql in ("DO $$ begin end $$", "CALL p()", "CREATE TABLE x ()", "INSERT INTO temporary VALUES (1)"):
            with self.subTest(sql):
                self.assertIsNone(self.written(sql))
