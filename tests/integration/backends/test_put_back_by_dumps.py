"""Whatever a committing test changes, alone or in a row, from wherever: the next test's dump is the same."""

import contextlib
import json
import os
import random
import tempfile
import threading
import unittest
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dbtestcase import TruncatingDatabaseTest
from dbtestcase.errors import DBTestCaseError
from tests.support import mariadb_changes, sqlite_changes
from tests.support.dumps import dump_of
from tests.support.mariadb import require_mariadb
from tests.support.runners import ROOT, run_python
from tests.support.samples import LONG, a_share

SEED = int(os.environ.get("TESTS_SEED", random.SystemRandom().randrange(10**6)))


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))


class Judged(TruncatingDatabaseTest):
    """Each test does one thing; the dump is looked at before each."""

    metadata = Base.metadata
    objects: ClassVar[Sequence[str]]
    class_rows: ClassVar[Sequence[str]]
    app: ClassVar[sa.Engine]
    first: ClassVar[list[str] | None]
    done: ClassVar[str]
    problems: ClassVar[list[str]]
    by_program: ClassVar[bool]

    @classmethod
    def load_base_data(cls, session: Session) -> None:
        session.add(Author(name="base"))
        session.flush()
        session.add(Book(author_id=1))
        session.flush()
        for statement in cls.objects:
            session.connection().exec_driver_sql(statement)

    @classmethod
    def setUpTestData(cls) -> None:
        cls.session.add(Author(name="of the class"))
        for statement in cls.class_rows:
            cls.session.connection().exec_driver_sql(statement)

    def look(self) -> None:
        cls = type(self)
        found = dump_of(sa.make_url(self.database_url), by_program=cls.by_program)
        if cls.first is None:
            cls.first = found
        elif found != cls.first:
            missing = [line for line in cls.first if line not in found]
            new = [line for line in found if line not in cls.first]
            cls.problems.append(f"{cls.done}\n  lost {missing[:4]}\n  new {new[:4]}")
            cls.first = found

    def act(self, label: str, statements: Sequence[str], run: Callable[[sa.URL, Sequence[str]], None] | None) -> None:
        self.look()
        type(self).done = label
        url = sa.make_url(self.database_url)
        if run is not None:
            run(url, statements)
        else:
            with self.app.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for statement in statements:
                    with contextlib.suppress(sa.exc.DBAPIError):
                        connection.exec_driver_sql(statement.replace("@DB", f"`{url.database}`").replace("%", "%%"))


def in_a_thread(url: sa.URL, statements: Sequence[str]) -> None:
    def work() -> None:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                with contextlib.suppress(sa.exc.DBAPIError):
                    connection.exec_driver_sql(statement.replace("@DB", f"`{url.database}`").replace("%", "%%"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_a_process(url: sa.URL, statements: Sequence[str]) -> None:
    program = (
        "import json, sys\nimport sqlalchemy as sa\n"
        "from tests.integration.backends.test_put_back_by_dumps import in_a_thread\n"
        "in_a_thread(sa.make_url(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    text = url.render_as_string(hide_password=False)
    run_python(["-c", program, text, json.dumps(list(statements))], cwd=ROOT).check_returncode()


class _Dumps(unittest.TestCase):
    __test__ = False
    url: ClassVar[str]
    objects: ClassVar[Sequence[str]]
    class_rows: ClassVar[Sequence[str]]
    changes: ClassVar[Sequence[str]]
    rows: ClassVar[Sequence[str]]
    share = 1  #: every so manieth change in an ordinary run

    def judge(self, acts: Sequence[tuple[str, Sequence[str]]], run: Any = None, *, by_program: bool = LONG) -> None:
        """Nothing of each act is there after it; who is told of a failure is the test that did it."""
        app = sa.create_engine(self.url)
        self.addCleanup(app.dispose)
        names: dict[str, Any] = {}
        for number, (label, statements) in enumerate(acts):
            names[f"test_{number:04}"] = lambda test, each=(label, statements): test.act(*each, run)
        names["test_last"] = Judged.look
        facts: dict[str, Any] = {"url": self.url, "objects": self.objects, "app": app, "engines": [app]}
        facts["class_rows"] = self.class_rows
        facts |= {"first": None, "done": "", "problems": [], "by_program": by_program, "__module__": __name__}
        case = type("Case", (Judged,), facts | names)
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
        told = [text for _, text in result.errors + result.failures]
        strange = [text for text in told if DBTestCaseError.__module__ not in text]
        self.assertEqual(strange, [], "\n".join(strange[:3]))
        self.assertEqual(case.problems, [], f"seed {SEED}\n" + "\n".join(case.problems))
        self.assertEqual(result.testsRun, len(acts) + 1, "\n".join(told[:3]))
        self.assertLess(len(told), 1 + len(acts) / 20, "\n".join(told[:5]))

    def sequences(self, number: int, random_: random.Random) -> list[tuple[str, list[str]]]:
        acts = []
        for _ in range(number):
            parts = random_.choices([*self.changes, *self.rows], k=random_.randrange(1, 6))
            acts.append((" | ".join(parts), [statement for part in parts for statement in part.split(";; ")]))
        return acts

    def alone(self, changes: Sequence[str]) -> list[tuple[str, list[str]]]:
        return [(change, change.split(";; ")) for change in changes]

    def test_each_change_alone(self) -> None:
        self.assertGreaterEqual(len(self.changes), 150)
        self.judge(self.alone(a_share([*self.rows, *self.changes], self.share)))

    def test_random_sequences(self) -> None:
        self.judge(self.sequences(500 if LONG else 6, random.Random(SEED)), by_program=True)

    def test_from_a_thread(self) -> None:
        changes = self.changes if LONG else random.Random(SEED).sample(list(self.changes), 5)
        self.judge(self.alone(changes), in_a_thread)

    def test_from_another_process(self) -> None:
        changes = self.changes if LONG else random.Random(SEED).sample(list(self.changes), 3)
        self.judge(self.alone(changes), in_a_process)


class MariaDBTest(_Dumps):
    __test__ = True
    url = "mariadb+pymysql://"
    share = 8
    objects, class_rows = mariadb_changes.OBJECTS, mariadb_changes.CLASS_ROWS
    changes, rows = mariadb_changes.CHANGES, mariadb_changes.ROWS

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        require_mariadb()


class SQLiteMemoryTest(_Dumps):
    __test__ = True
    share = 2
    url = "sqlite://"
    objects, class_rows = sqlite_changes.OBJECTS, sqlite_changes.CLASS_ROWS
    changes, rows = sqlite_changes.CHANGES, sqlite_changes.ROWS
    test_from_another_process = None  # type: ignore[assignment]  # nobody else can see it


class SQLiteFileTest(_Dumps):
    __test__ = True
    share = 2
    objects, class_rows = sqlite_changes.OBJECTS, sqlite_changes.CLASS_ROWS
    changes, rows = sqlite_changes.CHANGES, sqlite_changes.ROWS

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.url = f"sqlite:///{folder}/shop.db"


del _Dumps
