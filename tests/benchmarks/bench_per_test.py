"""What a test costs: python -m tests.benchmarks.bench_per_test

1,000 empty tests, and 500 that insert three rows through the ORM and commit, beside Django's TestCase and two
hand-written recipes (one session joined into an outer transaction, by ``join_transaction_mode`` or
``begin_nested()``), on the same server, over a plain TestCase; time of the process on the processor.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import (
    CHECKS,
    MODELS,
    RECIPE,
    TIMING,
    finish,
    in_turns,
    print_table,
    printed_seconds,
    shared_server,
    verdict,
)
from tests.support.runners import write_suite

EMPTY, ROWS, ROUNDS = 1_000, 500, 5

PROGRAMS = {
    "timing.py": TIMING,
    "models.py": MODELS,
    "plain.py": """
        import sys, unittest
        from timing import run

        class Plain(unittest.TestCase):
            def check(self): pass

        run(Plain, int(sys.argv[2]))
        """,
    "ours.py": """
        import sys
        from dbtestcase import DatabaseTest
        from models import Base, Row, Session, create_engine
        from timing import run

        engine = create_engine("postgresql+psycopg://nowhere/app")

        class Ours(DatabaseTest):
            metadata = Base.metadata
            engines = [engine]
            if sys.argv[1] == "empty":
                def check(self): pass
            else:
                def check(self):
                    with Session(engine) as session:
                        session.add_all(Row(name=str(number)) for number in range(3))
                        session.commit()

        run(Ours, int(sys.argv[2]))
        """,
    "documented.py": RECIPE,
    "checks.py": CHECKS,
    "recipe.py": """
        import os, sys
        from checks import check
        from documented import Recipe
        from models import Base, create_engine
        from timing import run

        engine = create_engine(os.environ["SCRATCH"])
        Base.metadata.create_all(engine)
        run(type("Joined", (Recipe,), {"engine": engine, "check": check}), int(sys.argv[2]))
        """,
    "nested.py": """
        import os, sys
        from checks import check
        from documented import Recipe
        from models import Base, create_engine
        from sqlalchemy import event
        from timing import run

        class Nested(Recipe):
            engine = create_engine(os.environ["SCRATCH"])
            options = {}
            check = check
            def setUp(self):
                super().setUp()
                self.nested = self.connection.begin_nested()
                @event.listens_for(self.session, "after_transaction_end")
                def end_savepoint(session, transaction):
                    if not self.nested.is_active:
                        self.nested = self.connection.begin_nested()

        Base.metadata.create_all(Nested.engine)
        run(Nested, int(sys.argv[2]))
        """,
    "django_.py": """
        import os, sys
        import django
        from django.conf import settings
        from sqlalchemy import make_url
        url = make_url(os.environ["SCRATCH"])
        settings.configure(DATABASES={"default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username or "",
            "HOST": url.query.get("host") or url.host or "", "PORT": url.port or url.query.get("port") or "",
        }}, INSTALLED_APPS=[], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
        django.setup()
        from django.db import connection, models, transaction
        from django.test import TestCase
        from timing import run

        class Row(models.Model):
            name = models.TextField()
            class Meta:
                app_label = "bench"
                db_table = "django_rows"

        if "django_rows" not in connection.introspection.table_names():
            with connection.schema_editor() as editor:
                editor.create_model(Row)

        class Django(TestCase):
            if sys.argv[1] == "empty":
                def check(self): pass
            else:
                def check(self):
                    with transaction.atomic():
                        for number in range(3):
                            Row.objects.create(name=str(number))

        run(Django, int(sys.argv[2]))
        """,
}
NAMES = {
    "plain": "unittest.TestCase",
    "ours": "DatabaseTest",
    "recipe": "recipe of the documentation",
    "nested": "recipe with begin_nested()",
    "django_": "Django",
}
LIMITS = {"empty": {"nested": 0.4, "recipe": 1.0}, "rows": {"django_": 0.8, "recipe": 0.9}}


def main() -> None:
    with shared_server() as (server, environment), tempfile.TemporaryDirectory() as name:
        folder = write_suite(Path(name), PROGRAMS)
        measure = partial(printed_seconds, folder=folder, env=environment)
        kept = []
        for kind, count in (("empty", EMPTY), ("rows", ROWS)):
            found = in_turns(
                {
                    program: partial(measure, [f"{program}.py", "empty" if program == "plain" else kind, str(count)])
                    for program in NAMES
                },
                ROUNDS,
            )
            over = {program: (seconds - found["plain"]) / count for program, seconds in found.items()}
            print_table(
                f"{count} tests, {kind}; each over a plain TestCase; PostgreSQL {server.version}; median of {ROUNDS}",
                [
                    (NAMES[program], seconds, f"{seconds / over['django_']:.2f} of Django's")
                    for program, seconds in over.items()
                    if program != "plain"
                ],
                "us",
            )
            for other, limit in LIMITS[kind].items():
                kept.append(verdict(f"{kind}, share of {NAMES[other]}", over["ours"] / over[other], limit))
    finish(kept)


if __name__ == "__main__":
    main()
