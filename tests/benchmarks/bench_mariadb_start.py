"""A warm start on MariaDB with 100 tables, beside creating them: python -m tests.benchmarks.bench_mariadb_start

Both are the time in one process from nothing to a database that is ready, without interpreter and imports.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine, text
from sqlalchemy.pool import NullPool

from dbtestcase import backends as databases
from dbtestcase.backends.schema import MetadataRecipe
from dbtestcase.settings import Settings
from tests.support.mariadb import mariadb_url

TABLES, ROUNDS = 100, 9


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def main() -> None:
    metadata = MetaData()
    for number in range(TABLES):
        parent = [Column("parent", ForeignKey(f"t{number - 1}.id"))] if number else []
        columns = [Column("id", Integer, primary_key=True), Column("name", String(50), index=True), *parent]
        Table(f"t{number}", metadata, *columns)
    url = mariadb_url()
    engine = create_engine(url._replace(database=None), isolation_level="AUTOCOMMIT")

    inside = create_engine(url.set(database="bench_plain"), poolclass=NullPool)

    def create() -> None:
        with engine.connect() as connection:
            connection.execute(text("CREATE DATABASE bench_plain"))
        metadata.create_all(inside)

    def drop() -> None:
        with engine.connect() as connection:
            connection.execute(text("DROP DATABASE bench_plain"))

    recipe = MetadataRecipe(metadata, dialect="mariadb")
    made: list[databases.Database] = []

    def take() -> None:
        made.append(databases.test_database(url, recipe, base="bench", settings=Settings(cache=Path("on"))))

    take()
    made.pop().close()
    ours, plain = [], []
    for _ in range(ROUNDS):
        plain.append(milliseconds(create))
        drop()
        ours.append(milliseconds(take))
        made.pop().close()
    databases.prune(url)
    engine.dispose()
    median, other = statistics.median(ours), statistics.median(plain)
    print(f"{TABLES} tables: warm start {median:.1f} ms, CREATE DATABASE and create_all {other:.1f} ms")
    print(f"{other / median:.0f} times faster (at least 10 are promised)")


if __name__ == "__main__":
    main()
