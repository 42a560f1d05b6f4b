"""After whatever a test changed besides rows, a full dump of the database is what it was; pg_dump is the judge."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import unittest

import psycopg

from dbtestcase.backends.cleaning import Cleaner, cleaner_for, install
from dbtestcase.server.programs import find_programs
from dbtestcase.settings import read_settings
from tests.support.requirements import require
from tests.support.runners import ROOT, run_python
from tests.support.samples import LONG
from tests.support.scratch import Scratch, connect
from tests.support.servers import postgresql_url
from tests.support.statements_beside_rows import BY_OWNERS, BY_SUPERUSERS, CLASS_ROWS, ROWS, SCHEMA, SUPERUSERS_SCHEMA

ALONE, SEQUENCES = (10_000, 250) if LONG else (5, 2)
WAYS = ("here", "here", "here", "here", "thread", "process")
ROLES = ("dump_first", "dump_second")


def full_dump(scratch: Scratch) -> list[str]:
    """The statements of a dump that makes the database, sorted; rows with their table."""
    program = find_programs(read_settings()).bin / "pg_dump"
    require(program.exists(), "pg_dump", "install PostgreSQL's client programs")
    url = scratch.server.set(drivername="postgresql", database=scratch.url.database)
    text = subprocess.run(
        [program, "--create", "--exclude-schema=_dbtestcase", "-d", url.render_as_string(hide_password=False)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found, table, part = [], "", ""
    for line in text.splitlines():
        if line == "\\.":
            table = ""
        elif table:
            found.append(f"{table}: {line}")
        elif line.startswith("COPY "):
            table = line
        elif line and not line.startswith(("--", "\\")):
            part += line + "\n"
            if line.endswith(";"):
                found.append(part)
                part = ""
    return sorted(each for each in found if "_dbtestcase" not in each)


class _Dumps(unittest.TestCase):
    role = ""
    schema = SCHEMA
    statements: list[str]
    scratch: Scratch
    cleaner: Cleaner
    before: list[str]

    @classmethod
    def setUpClass(cls) -> None:
        with connect(postgresql_url(), autocommit=True) as connection:
            for role in {*ROLES, cls.role} - {"postgres"}:
                connection.execute(f"create role {role} login".encode())
                cls.addClassCleanup(cls.drop_role, role)
        cls.scratch = cls.enterClassContext(Scratch(cls.__name__.lower(), cls.schema, owner=cls.role))
        install(cls.scratch.template)
        cls.scratch.clone()
        cls.cleaner = cls.enterClassContext(cleaner_for(cls.scratch.url, cls.scratch))
        cls.keep_class_rows()
        cls.before = full_dump(cls.scratch)

    @classmethod
    def keep_class_rows(cls) -> None:
        with connect(cls.scratch.url, autocommit=True) as connection:
            connection.execute(CLASS_ROWS.encode(), prepare=False)
        cls.cleaner.keep()

    @classmethod
    def drop_role(cls, role: str) -> None:
        with connect(postgresql_url(), autocommit=True) as connection:
            connection.execute(f"drop role {role}".encode())

    def perform(self, statements: list[str], way: str) -> None:
        """As an application would, on a connection of its own: some of it may fail."""
        names = {"@DB": str(self.scratch.url.database), "@ROLE": self.role}
        texts = [re.sub("@DB|@ROLE", lambda name: names[name[0]], text) for text in statements]
        if way == "process":
            program = f"import sys\nfrom {__name__} import run\nrun(sys.argv[1], sys.argv[2:])"
            url = self.scratch.url.render_as_string(hide_password=False)
            run_python(["-c", program, url, *texts], cwd=ROOT).check_returncode()
        elif way == "thread":
            thread = threading.Thread(target=run, args=(self.scratch.url, texts))
            thread.start()
            thread.join()
        else:
            run(self.scratch.url, texts)

    def assertPutBack(self, statements: list[str], way: str) -> None:
        self.perform(statements, way)
        if self.cleaner.clean().lost:  # the copies of the class's rows went: its case makes these again, and so do we
            self.keep_class_rows()
        after = full_dump(self.scratch)
        self.assertEqual(
            ([line for line in after if line not in self.before], [line for line in self.before if line not in after]),
            ([], []),
        )
        self.assertEqual(after, self.before)

    def test_each_statement_by_itself(self) -> None:
        chosen = self.statements if LONG else random.sample(self.statements, ALONE)
        for statement in chosen:
            for way in sorted({*WAYS}) if LONG else (random.choice(WAYS),):
                with self.subTest(statement, way=way):
                    self.assertPutBack([statement], way)

    def test_random_sequences_with_rows_between(self) -> None:
        for _ in range(SEQUENCES):
            length = random.randint(2, 7)
            work = [random.choice(random.choice((self.statements, ROWS))) for _ in range(length)]
            way = random.choice(WAYS)
            with self.subTest(work, way=way):
                self.assertPutBack(work, way)


def run(url: object, statements: list[str]) -> None:
    from sqlalchemy import make_url

    with connect(make_url(str(url)) if isinstance(url, str) else url, autocommit=True) as connection:  # type: ignore[arg-type]
        for statement in statements:
            parts = [statement] if "$$" in statement else statement.split(";")
            for part in parts:
                try:
                    connection.execute(part.encode(), prepare=False)
                except psycopg.Error:
                    continue  # what an earlier statement made impossible


class SuperuserDumpsTest(_Dumps):
    role = "postgres"
    schema = f"{SCHEMA}; {SUPERUSERS_SCHEMA}; alter table scratch owner to dump_first"
    statements = BY_OWNERS + BY_SUPERUSERS


class OwnerDumpsTest(_Dumps):
    role = "dump_owner"
    statements = BY_OWNERS


del _Dumps
