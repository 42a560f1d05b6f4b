"""Alembic projects as `alembic init` writes them, with revisions of a test's own, and databases to run them on."""

from __future__ import annotations

import argparse
import contextlib
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from tests.support.servers import postgresql_url

SHOP = Path(__file__).parent / "projects" / "shop"


class AlembicProject:
    """A project in a folder.

    :param folder: where it is made.
    :param template: a template of `alembic init`: generic, async, multidb, pyproject, …
    """

    def __init__(self, folder: Path | str, template: str = "generic") -> None:
        self.folder = Path(folder)
        self.ini = self.folder / "alembic.ini"
        self.env_py = self.folder / "migrations" / "env.py"
        config = Config(str(self.ini))
        config.toml_file_name = str(self.folder / "pyproject.toml")  # what older versions of Alembic do not know
        config.cmd_opts = argparse.Namespace(quiet=True)
        command.init(config, str(self.folder / "migrations"), template=template)
        for path in (self.ini, self.folder / "pyproject.toml"):
            if path.exists():
                path.write_text(path.read_text().replace(str(self.folder / "migrations"), "%(here)s/migrations"))

    def revision(
        self,
        identifier: str,
        down: str | tuple[str, ...] | None,
        up: str = "pass",
        back: str = "pass",
        *,
        folder: str = "migrations/versions",
        top: str = "",
        label: str | None = None,
    ) -> Path:
        """Write a revision; ``up`` and ``back`` are the bodies of its two functions."""
        path = self.folder / folder / f"{identifier}_step.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = [
            f'"""Step {identifier}."""',
            "import sqlalchemy as sa\nfrom alembic import op",
            f"revision = {identifier!r}\ndown_revision = {down!r}\nbranch_labels = {label!r}\ndepends_on = None",
            textwrap.dedent(top),
        ]
        for name, lines in (("upgrade", up), ("downgrade", back)):
            body.append(f"def {name}():\n" + textwrap.indent(textwrap.dedent(lines).strip(), "    "))
        path.write_text("\n\n".join(body) + "\n", encoding="utf-8")
        return path

    def table(self, identifier: str, down: str | None, name: str, **options: Any) -> Path:
        """Write a revision that makes one table, and undoes it."""
        up = f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'
        return self.revision(identifier, down, up, f'op.drop_table("{name}")', **options)

    def replace(self, old: str, new: str, path: Path | None = None) -> None:
        """Change the text of env.py (or of another file)."""
        path = path or self.env_py
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def reads_url(self, expression: str) -> None:
        """Let env.py make its engine from an expression instead of the ini."""
        text = self.env_py.read_text(encoding="utf-8")
        head, tail = text.split("connectable = ")
        rest = tail.partition(")\n\n")[2]
        self.env_py.write_text(
            head.replace("from alembic import context", "import os\nimport sqlalchemy\nfrom alembic import context")
            + f"connectable = {expression}\n\n"
            + rest,
            encoding="utf-8",
        )


class EmptyDatabase:
    """A database, and a connection of the judge's own."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def ask(self, statement: str) -> list[Any]:
        with _connect(self.url) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def is_alone(self) -> bool:
        """Whether nobody else is connected; a server process takes a moment to end after its client has closed."""
        with _connect(self.url) as connection:
            for _ in range(500):
                others = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
                if connection.execute(others).fetchone() == (0,):
                    return True
                connection.execute("SELECT pg_sleep(0.01)")
        return False

    def tables(self) -> list[str]:
        """Names of the tables in all schemas, Alembic's own left out."""
        rows = self.ask(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p') "
            "AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg_toast%' ORDER BY 1"
        )
        return [name for (name,) in rows if not name.startswith("alembic_version")]


@contextlib.contextmanager
def empty_database(template: EmptyDatabase | None = None) -> Iterator[EmptyDatabase]:
    """A database that is dropped afterwards; or one that begins as a copy of another, to which nobody is connected."""
    server = postgresql_url()
    name = f"migrations_{uuid.uuid4().hex[:12]}"
    with _connect(server) as connection:
        like = "" if template is None else f" TEMPLATE {template.url.database}"
        connection.execute(f"CREATE DATABASE {name}{like}")  # type: ignore[call-overload]
    try:
        yield EmptyDatabase(server.set(database=name))
    finally:
        with _connect(server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


def _connect(url: URL) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=str(url.query.get("host", url.host)),
        port=int(str(url.query.get("port", url.port or 5432))),
        user=url.username,
        password=url.password,
        dbname=url.database,
        autocommit=True,
    )
