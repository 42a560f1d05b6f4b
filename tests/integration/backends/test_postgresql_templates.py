"""Templates on a real PostgreSQL: built once, kept, rebuilt when interrupted, pruned."""

import json
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from sqlalchemy import URL, Column, Integer, MetaData, Table, event

from dbtestcase import backends as databases
from dbtestcase.backends.interface import Database
from dbtestcase.backends.names import template_name
from dbtestcase.backends.postgresql import catalog as catalogs
from dbtestcase.backends.recipes import kind_of
from dbtestcase.settings import Settings
from tests.support.postgresql import CACHE, NO_CACHE, CountingRecipe, PostgreSQLTestCase, recipe

CONTEXT = multiprocessing.get_context("fork")


class TemplatesTestCase(PostgreSQLTestCase):
    def setUp(self) -> None:
        databases.prune(self.url)
        super().setUp()

    def make(self, made_from: CountingRecipe, **options: bool) -> Database:
        return databases.test_database(self.url, made_from, base="x", settings=CACHE, **options)


class TemplateTest(TemplatesTestCase):
    def test_the_second_database_is_cloned(self) -> None:
        first, second = CountingRecipe("counted"), CountingRecipe("counted")
        with self.make(first) as made, self.make(second) as cloned:
            self.assertEqual((made.made_template, cloned.made_template), (True, False))
            self.assertEqual(self.ask("SELECT count(*) FROM counted", cloned.url), [(0,)])
        self.assertEqual((len(first.built), second.built), (1, []))
        self.assertEqual(len(self.templates()), 1)

    def test_without_a_cache_no_template_is_made_or_used(self) -> None:
        self.make(CountingRecipe("uncached")).close()
        before = self.templates()
        for name in ("uncached", "other"):
            counted = CountingRecipe(name)
            settings = NO_CACHE
            with databases.test_database(self.url, counted, base="x", settings=settings) as made:
                self.assertEqual([url.database for url in counted.built], [made.name])
        self.assertEqual(self.templates(), before)

    def test_another_model_role_or_base_data_has_a_template_of_its_own(self) -> None:
        databases.test_database(self.url, recipe("a"), base="x", settings=CACHE).close()
        databases.test_database(self.url, recipe("a", 1), base="x", settings=CACHE).close()
        databases.test_database(self.url, recipe("b"), base="x", settings=CACHE).close()
        self.assertEqual(len(self.templates()), 3)
        with self.role("maker", "CREATEDB") as url:
            with databases.test_database(url, recipe("a"), base="x", settings=CACHE) as made:
                self.assertEqual(self.ask("SELECT count(*) FROM a", made.url), [(0,)])
            self.assertEqual(len(self.templates()), 4)
            self.assertEqual(len(databases.prune(url)), 1)  # the others belong to another role

    def test_another_version_of_the_server_or_of_the_library_has_a_template_of_its_own(self) -> None:
        self.make(CountingRecipe("versions")).close()
        for name, value in (
            ("dbtestcase.backends.postgresql.admin.Admin.version_name", "99.1"),
            ("dbtestcase.backends.names.library_version", lambda: "99.2"),
        ):
            with self.subTest(name), mock.patch(name, value):
                before, counted = self.templates(), CountingRecipe("versions")
                self.make(counted).close()
                self.make(counted).close()
                self.assertEqual((len(counted.built), len(self.templates() - before)), (1, 1))

    def test_one_that_is_not_marked_complete_is_built_again(self) -> None:
        self.make(CountingRecipe("unmarked")).close()
        (template,) = self.templates()
        self.ask(f"COMMENT ON DATABASE {template} IS NULL")
        counted = CountingRecipe("unmarked")
        self.make(counted).close()
        self.assertEqual(len(counted.built), 1)
        self.assertEqual(self.templates(), {template})

    def test_one_that_was_dropped_a_moment_ago_is_built_again(self) -> None:
        first = self.make(CountingRecipe("dropped"))
        (template,) = self.templates()
        self.ask(f"DROP DATABASE {template}")
        first.reclone()
        self.assertEqual(self.ask("SELECT count(*) FROM dropped", first.url), [(0,)])
        self.assertEqual(self.templates(), {template})
        first.close()

    def test_nobody_can_connect_to_it_and_somebody_who_did_all_the_same_does_not_stop_the_next(self) -> None:
        self.make(CountingRecipe("opened")).close()
        (template,) = self.templates()
        self.assertEqual(self.ask(f"SELECT datallowconn FROM pg_database WHERE datname = '{template}'"), [(False,)])
        self.ask(f"ALTER DATABASE {template} ALLOW_CONNECTIONS true")
        counted = CountingRecipe("opened")
        with self.connection(self.url.set(database=template)):
            self.make(counted).close()
        self.assertEqual(counted.built, [])

    def test_a_recipe_that_leaves_connections_open_does_not_stop_its_template(self) -> None:
        left = []

        class Leaving(CountingRecipe):
            def build(inner, url: URL) -> None:
                super().build(url)
                opened = self.connection(url)
                left.append((opened, opened.__enter__()))

        self.make(Leaving("leaving")).close()
        self.assertEqual(len(self.templates()), 1)
        left[0][1].close()

    def test_a_failed_build_leaves_nothing_and_is_tried_again(self) -> None:
        broken = CountingRecipe("flawed")

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("the hook fails")

        event.listen(broken.metadata[0], "after_create", fail)
        with self.assertRaisesRegex(RuntimeError, "the hook fails"):
            self.make(broken)
        self.assertEqual(self.templates(), set())
        event.remove(broken.metadata[0], "after_create", fail)
        self.make(broken).close()
        self.assertEqual(len(self.templates()), 1)


class Derived(CountingRecipe):
    """Adds a table to what another recipe makes."""

    def __init__(self, inner: CountingRecipe) -> None:
        super().__init__("added")
        self.inner = inner

    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint()} {super().fingerprint()}"

    def build(self, url: URL) -> None:
        self.inner.build(url)
        self.complete(url)

    def complete(self, url: URL) -> None:
        super().build(url)


class DerivedTest(TemplatesTestCase):
    """A recipe that adds to another one begins with a clone of the other's template."""

    def test_what_both_need_is_made_once_in_either_order(self) -> None:
        for order in ("inner first", "derived first"):
            with self.subTest(order):
                databases.prune(self.url)
                inner = CountingRecipe("shared")
                derived = Derived(inner)
                for each in (inner, derived) if order == "inner first" else (derived, inner):
                    self.make(each).close()
                self.assertEqual((len(inner.built), len(derived.built), len(self.templates())), (1, 1, 2))
                with self.make(inner) as plain, self.make(derived) as added:
                    self.assertEqual(self.ask("SELECT to_regclass('added')::text", plain.url), [(None,)])
                    self.assertEqual(self.ask("SELECT count(*) FROM shared, added", added.url), [(0,)])

    def test_an_addition_that_fails_leaves_the_template_of_the_other(self) -> None:
        inner = CountingRecipe("sound")
        derived = Derived(inner)
        with mock.patch.object(derived, "complete", side_effect=RuntimeError("no room")):
            with self.assertRaisesRegex(RuntimeError, "no room"):
                self.make(derived)
        self.assertEqual(len(self.templates()), 1)
        self.make(derived).close()
        self.assertEqual((len(inner.built), len(self.templates())), (1, 2))

    def test_without_a_cache_the_whole_is_built(self) -> None:
        derived = Derived(CountingRecipe("whole"))
        with databases.test_database(self.url, derived, base="x", settings=NO_CACHE) as made:
            self.assertEqual(self.ask("SELECT count(*) FROM whole, added", made.url), [(0,)])
        self.assertEqual(self.templates(), set())


class PruningTest(TemplatesTestCase):
    def used(self, *labels: str) -> list[str]:
        """Templates of these labels, the first used longest ago."""
        names = []
        for number, label in enumerate(labels):
            name = template_name(str(number))
            note = catalogs.TEMPLATE + json.dumps(
                {"label": label, "kind": kind_of(CountingRecipe("")), "used": 1000 + number}
            )
            self.ask(f"CREATE DATABASE {name}")
            self.ask(f"COMMENT ON DATABASE {name} IS '{note}'")
            names.append(name)
        return names

    def test_of_one_recipe_the_few_that_were_used_last_are_kept(self) -> None:
        label = CountingRecipe("kept").label
        old = self.used(label, "other", label, label)
        with mock.patch.object(catalogs, "KEPT_OF_RECIPE", 2):
            self.make(CountingRecipe("kept")).close()
        left = self.templates()
        self.assertEqual(len(left), 3)
        self.assertLessEqual({old[1], old[3]}, left)

    def test_the_classes_of_a_run_keep_each_its_own(self) -> None:
        metadata = MetaData()
        Table("filled", metadata, Column("id", Integer))

        class Classes:
            def first(self: Any) -> None: ...
            def second(self: Any) -> None: ...
            def third(self: Any) -> None: ...
            def fourth(self: Any) -> None: ...

        for made in (True, False):
            for load in (Classes.first, Classes.second, Classes.third, Classes.fourth):
                database = databases.test_database(
                    self.url, databases.MetadataRecipe(metadata, load), base="x", settings=CACHE
                )
                with self.subTest(load.__name__), database:
                    self.assertEqual(database.made_template, made)

    def test_of_all_recipes_the_few_that_were_used_last_are_kept(self) -> None:
        old = self.used("a", "b", "c")
        with mock.patch.object(catalogs, "KEPT_IN_ALL", 2):
            self.make(CountingRecipe("fourth")).close()
        left = self.templates()
        self.assertEqual(len(left), 2)
        self.assertIn(old[2], left)

    def test_use_is_noted_once_in_an_hour(self) -> None:
        self.make(CountingRecipe("noted")).close()
        (template,) = self.templates()
        query = f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{template}'"
        fresh = self.ask(query)
        self.make(CountingRecipe("noted")).close()
        self.assertEqual(self.ask(query), fresh)
        self.ask(f"""COMMENT ON DATABASE {template} IS '{catalogs.TEMPLATE}{{"label": "l", "used": 1}}'""")
        self.make(CountingRecipe("noted")).close()
        self.assertNotIn('"used": 1}', self.ask(query)[0][0])

    def test_prune_drops_templates_and_leaves_what_is_not_ours(self) -> None:
        with self.database("x_host_1_0123abcd"), self.database("dbtestcase_template_shop") as mine:
            self.ask("COMMENT ON DATABASE dbtestcase_template_shop IS 'dbtestcase: template {}'", mine)
            held = self.make(CountingRecipe("pruned"))
            (template,) = self.templates() - {"dbtestcase_template_shop"}
            self.assertEqual(databases.prune(self.url, templates=False), [])
            self.assertEqual(databases.prune(self.url, dry=True), [template])
            self.assertEqual(databases.prune(self.url), [template])
            self.assertIn(held.name, self.names())
            held.close()


class ProcessesTest(TemplatesTestCase):
    def test_eight_processes_at_once_build_it_once(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)
        start = CONTEXT.Barrier(8)

        def work(results: Connection) -> None:
            counted = CountingRecipe("crowd")
            start.wait(60)
            with databases.test_database(self.url, counted, base="x", settings=CACHE) as made:
                results.send((len(counted.built), self.ask("SELECT count(*) FROM crowd", made.url)))

        processes = [CONTEXT.Process(target=work, args=(writing,)) for _ in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        self.assertEqual([process.exitcode for process in processes], [0] * 8)
        results = [reading.recv() for _ in processes]
        self.assertEqual(sorted(results), [(0, [(0,)])] * 7 + [(1, [(0,)])])

    def test_a_build_that_is_killed_is_done_again_by_the_one_that_waits(self) -> None:
        reading, writing = CONTEXT.Pipe(duplex=False)

        def killed() -> None:
            class Dying(CountingRecipe):
                def build(self, url: URL) -> None:
                    super().build(url)
                    writing.send(url.database)
                    signal.pause()

            databases.test_database(self.url, Dying("dying"), base="x", settings=CACHE)

        process = CONTEXT.Process(target=killed)
        process.start()
        half = reading.recv()
        waiting, done = CONTEXT.Pipe(duplex=False)

        def waits() -> None:
            counted = CountingRecipe("dying")
            with databases.test_database(self.url, counted, base="x", settings=CACHE) as made:
                done.send((len(counted.built), self.ask("SELECT count(*) FROM dying", made.url)))

        second = CONTEXT.Process(target=waits)
        second.start()
        self.ask(
            "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory') LOOP"
            " PERFORM pg_sleep(0.01); END LOOP; END $$"
        )
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.assertEqual(waiting.recv(), (1, [(0,)]))
        second.join()
        self.assertNotIn(half, self.names())
        self.assertEqual(len(self.templates()), 1)

    def test_the_next_run_drops_what_a_killed_one_left(self) -> None:
        for settings in (CACHE, NO_CACHE):
            with self.subTest(cache=settings.cache):
                reading, writing = CONTEXT.Pipe(duplex=False)

                def killed(writing: Connection = writing, settings: Settings = settings) -> None:
                    made = databases.test_database(self.url, recipe("k"), base="x", settings=settings)
                    writing.send(made.name)
                    signal.pause()

                process = CONTEXT.Process(target=killed)
                process.start()
                name = reading.recv()
                databases.test_database(self.url, recipe("k"), base="y", settings=CACHE).close()
                self.assertIn(name, self.names(), "dropped although its owner lives")
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                self.wait_until_unowned(name)
                databases.test_database(self.url, recipe("k"), base="y", settings=CACHE).close()
                self.assertNotIn(name, self.names())

    def test_one_killed_between_creating_and_commenting_is_dropped_as_well(self) -> None:
        self.ask(f'CREATE DATABASE "x_host_1_0123abcd" CONNECTION LIMIT {catalogs.MARK_LIMIT}')
        self.assertEqual(databases.prune(self.url, templates=False), ["x_host_1_0123abcd"])
