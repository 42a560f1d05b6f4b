"""What a statement speaks of beside rows."""

from __future__ import annotations

import unittest

from dbtestcase.sandbox import classify
from dbtestcase.sandbox.topics import Topic


class TopicsTest(unittest.TestCase):
    def test_columns_named_like_commands_are_columns(self) -> None:
        for text in (
            "SELECT t.show, t.listen, t.discard FROM t",
            "INSERT INTO t (prepare,\nfetch, close) VALUES (%s, $1, :x)",
            "UPDATE t SET execute = 1,\nmove = 2",
        ):
            with self.subTest(text):
                self.assertEqual(classify(text).topics, Topic.NONE)
                self.assertTrue(classify(text).plain)

    def test_a_text_that_the_server_may_run_is_read(self) -> None:
        for text in (
            "SELECT run('LISTEN x')",
            "SELECT run($$LISTEN x$$)",
            "SELECT run($do$LISTEN x$do$)",
            "SELECT 1; LISTEN x",
            'DO LANGUAGE plpgsql "LISTEN x"',
            "WITH a AS (SELECT 1) SELECT pg_listening_channels()",
            "SELECT * FROM pg_listening_channels()",
        ):
            with self.subTest(text):
                self.assertEqual(classify(text).topics, Topic.LISTENING)

    def test_functions_and_clauses_are_found_in_any_statement(self) -> None:
        for text, topic in {
            "SELECT pg_try_advisory_xact_lock(1)": Topic.ADVISORY,
            "SELECT pg_advisory_unlock_all()": Topic.ADVISORY,
            "SELECT IS_FREE_LOCK(1)": Topic.ADVISORY,
            "SELECT * FROM t FOR UPDATE SKIP LOCKED": Topic.IMPATIENT,
            "SELECT * FROM t FOR UPDATE WAIT 3": Topic.IMPATIENT,
            "INSERT INTO t VALUES (currval('s'))": Topic.LAST_VALUES,
            "SELECT next value for s": Topic.LAST_VALUES,
            "SELECT LAST_INSERT_ID()": Topic.LAST_VALUES,
            "SELECT current_setting('a.b')": Topic.REPORTING,
            "SELECT * FROM pg_prepared_statements": Topic.PLANS,
            "SELECT 1 INTO TEMP t": Topic.TEMPORARY,
            "SELECT 1 INTO pg_temp.t": Topic.TEMPORARY,
            "CREATE OR REPLACE VIEW pg_temp.t AS SELECT 1": Topic.TEMPORARY,
            "CREATE TABLE t AS SELECT * FROM pg_temp.t": Topic.NONE,
            "SELECT * FROM pg_temp.t": Topic.NONE,
        }.items():
            with self.subTest(text):
                self.assertEqual(classify(text).topics, topic)
