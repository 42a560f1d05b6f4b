"""Shapes of env.py as projects have them, written for a driver: a small project with three revisions each."""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SHAPES", "Shape", "write"]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Shape:
    """One way to write env.py.

    :param top: lines before the engine.
    :param url: an expression for the engine's URL.
    :param before: lines between the connection and ``context.configure``.
    :param options: more arguments of ``context.configure``.
    :param ini: more lines of the ini's section.
    :param versions: the folder of the revisions.
    :param schema: the schema of the models' tables.
    :param files: more files, by their names.
    :param extra: a line of the first revision: what the models do not know and env.py passes over.
    :param kinds: the kinds of databases that it is for.
    """

    top: str = ""
    url: str = 'config.get_main_option("sqlalchemy.url")'
    before: str = ""
    options: str = ""
    ini: str = ""
    versions: str = "migrations/versions"
    schema: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    extra: str = ""
    kinds: tuple[str, ...] = ("postgresql", "sqlite", "mariadb")


_LOGGING = """
    import logging.config
    logging.config.dictConfig({"version": 1, "root": {"level": "CRITICAL"}, "disable_existing_loggers": True})
"""
_LATE = """
    import pathlib
    context.script.version_locations = [str(pathlib.Path(__file__).parents[1] / "elsewhere" / "one")]
"""
_FILTERS = """
    def include_object(object, name, type_, reflected, compare_to):
        return not (type_ == "table" and name == "legacy") and not getattr(object, "info", {}).get("skip")
    def include_name(name, type_, parents):
        return not (type_ == "index" and name == "ix_legacy")
"""
_CALLABLES = """
    def compare_type(context, inspected, model, inspected_type, model_type):
        return False if model.name == "title" else None
    def compare_default(context, inspected, model, inspected_default, model_default, rendered):
        return None
"""
_DIRECTIVES = """
    def directives(context, revision, scripts):
        from alembic.operations import ops
        for script in scripts:
            script.upgrade_ops.ops[:] = [
                each for each in script.upgrade_ops.ops
                if not (isinstance(each, ops.DropTableOp) and each.table_name == "legacy")
            ]
"""
_LEGACY = 'op.create_table("legacy", sa.Column("id", sa.Integer, primary_key=True))'
_SETTINGS = 'import os\n\ndef url():\n    return os.environ.get("SHAPE_DATABASE_URL", DEFAULT)\n'

SHAPES: dict[str, Shape] = {
    "generic": Shape(),
    "settings of the application": Shape(
        top="import {settings}", url="{settings}.url()", files=(("{settings}", _SETTINGS),)
    ),
    "x argument": Shape(url='context.get_x_argument(as_dictionary=True).get("url", URL)'),
    "logging by dictConfig": Shape(top=_LOGGING),
    "locations set late": Shape(top=_LATE, versions="elsewhere/one"),
    "locations in the ini": Shape(
        ini="version_path_separator = ;\nversion_locations = %(here)s/nowhere;%(here)s/elsewhere/one",
        versions="elsewhere/one",
    ),
    "folders below": Shape(ini="recursive_version_locations = true", versions="migrations/versions/2024/05"),
    "batch": Shape(options="render_as_batch=True"),
    "filters": Shape(top=_FILTERS, options="include_object=include_object, include_name=include_name", extra=_LEGACY),
    "functions that compare": Shape(
        top=_CALLABLES, options="compare_type=compare_type, compare_server_default=compare_default"
    ),
    "directives": Shape(top=_DIRECTIVES, options="process_revision_directives=directives", extra=_LEGACY),
    "a transaction for each revision": Shape(options="transaction_per_migration=True"),
    "a version table of its own": Shape(options='version_table="shape_version"'),
    "a version table in a schema": Shape(
        before='connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS books"); connection.commit()',
        options='version_table_schema="books"',
        kinds=("postgresql",),
    ),
    "schemas": Shape(options="include_schemas=True", schema="audit", kinds=("postgresql",)),
    "search path": Shape(
        before='connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS tenant")\n'
        'connection.exec_driver_sql("SET search_path TO tenant")\nconnection.commit()\n'
        'connection.dialect.default_schema_name = "tenant"',
        kinds=("postgresql",),
    ),
    "the command line": Shape(
        top='assert config.cmd_opts.cmd[0].__name__ in ("upgrade", "downgrade", "current", "check"), config.cmd_opts'
    ),
    "a connection of the caller's": Shape(),
    "autocommit": Shape(before='connection = connection.execution_options(isolation_level="AUTOCOMMIT")'),
}

_SYNC = """
engine = sqlalchemy.create_engine({url})
with engine.connect() as connection:
    run(connection)
engine.dispose()
"""
_ASYNC = """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine

async def main():
    engine = create_async_engine({url})
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()

asyncio.run(main())
"""
_GIVEN = 'run(context.config.attributes["connection"])\n'

_MODELS = """
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    metadata = sa.MetaData(schema={schema!r})

class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80), index=True)

class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey(Author.id, name="fk_post_author"))
    title: Mapped[str] = mapped_column(sa.String(200), server_default="untitled")
    unwatched: Mapped[str | None] = mapped_column(sa.String(10), info={{"skip": True}})
"""


def write(folder: Path, name: str, drivername: str) -> Path:
    """Write a project of a shape; the path of its ini.

    :param drivername: ``postgresql+asyncpg``, say: the driver that env.py's engine uses.
    """
    shape, number = SHAPES[name], next(_numbers)
    models, settings = f"shape_models_{number}", f"shape_settings_{number}"
    nowhere = f"{drivername}://nobody:secret@127.0.0.1:1/production"
    if drivername.startswith("sqlite"):
        nowhere = f"{drivername}:////nowhere/production.db"
    top = (
        textwrap.dedent(shape.top).format(settings=settings)
        if "{settings}" in shape.top
        else textwrap.dedent(shape.top)
    )
    options = f", {shape.options}" if shape.options else ""
    env = [
        f"import sqlalchemy\nfrom alembic import context\nimport {models}",
        f"config = context.config\nURL = {nowhere!r}",
        top.strip(),
        "def run(connection):\n" + textwrap.indent(textwrap.dedent(shape.before) or "pass", "    "),
        f"    context.configure(connection=connection, target_metadata={models}.Base.metadata{options})",
        "    with context.begin_transaction():\n        context.run_migrations()",
    ]
    body = _GIVEN if name == "a connection of the caller's" else _ASYNC if "asyncpg" in drivername else _SYNC
    (folder / "migrations").mkdir(parents=True)
    (folder / "migrations" / "env.py").write_text(
        "\n".join(env) + "\n" + body.format(url=shape.url.format(settings=settings))
    )
    (folder / f"{models}.py").write_text(_MODELS.format(schema=shape.schema))
    for file, content in shape.files:
        (folder / f"{file.format(settings=settings)}.py").write_text(f"DEFAULT = {nowhere!r}\n{content}")
    ini = folder / "alembic.ini"
    where = "script_location = %(here)s/migrations\nprepend_sys_path = %(here)s"
    if "separator" not in shape.ini:
        where += "\npath_separator = os"
    ini.write_text(f"[alembic]\n{where}\nsqlalchemy.url = {nowhere}\n{shape.ini}\n")
    _revisions(folder / shape.versions, shape)
    return ini


def _revisions(folder: Path, shape: Shape) -> None:
    folder.mkdir(parents=True)
    schema = f", schema={shape.schema!r}" if shape.schema else ""
    prefix = f"{shape.schema}." if shape.schema else ""
    make_schema = f'op.execute("CREATE SCHEMA {shape.schema}")\n' if shape.schema else ""
    drop_schema = f'\nop.execute("DROP SCHEMA {shape.schema}")' if shape.schema else ""
    steps = (
        (
            make_schema + 'op.create_table("author", sa.Column("id", sa.Integer, primary_key=True), '
            f'sa.Column("name", sa.String(80), nullable=False){schema})\n{shape.extra}',
            ('op.drop_table("legacy")\n' if shape.extra else "") + f'op.drop_table("author"{schema}){drop_schema}',
        ),
        (
            'op.create_table("post", sa.Column("id", sa.Integer, primary_key=True), sa.Column("author_id", sa.Integer, '
            f'sa.ForeignKey("{prefix}author.id", name="fk_post_author"), nullable=False), sa.Column("title", '
            'sa.String(200), server_default="untitled", nullable=False), '
            f'sa.Column("unwatched", sa.String(10)){schema})',
            f'op.drop_table("post"{schema})',
        ),
        (
            f'op.create_index("ix_{prefix.replace(".", "_")}author_name", "author", ["name"]{schema})',
            f'op.drop_index("ix_{prefix.replace(".", "_")}author_name", table_name="author"{schema})',
        ),
    )
    for number, (up, back) in enumerate(steps, 1):
        down = f"{number - 1:04}" if number > 1 else None
        functions = "".join(
            f"\n\ndef {name}():\n" + textwrap.indent(lines.strip(), "    ") + "\n"
            for name, lines in (("upgrade", up), ("downgrade", back))
        )
        (folder / f"{number:04}_step.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n\n"
            f"revision = {f'{number:04}'!r}\ndown_revision = {down!r}{functions}"
        )
