"""A real PostgreSQL for the tests: the one that TESTS_URL names, else a disposable one of this process."""

import atexit
import contextlib
import functools
import itertools
import os
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from dbtestcase.cases import provisioning
from dbtestcase.server import Server, disposable_server
from dbtestcase.settings import read_settings


def keep_no_templates() -> None:
    """Have classes that run in this process keep no template for the next run: each is of one test.

    The cluster of all that came before is copied twice for each; what is kept is tested in processes of their own.
    """
    start = provisioning.disposable_server

    @functools.wraps(start)
    def started(*arguments: Any, **options: Any) -> Server:
        server = start(*arguments, **options)
        server.persist = lambda: None  # type: ignore[method-assign]
        return server

    provisioning.disposable_server = started


@functools.cache
def postgresql_url() -> URL:
    """A server's maintenance database, as a superuser; the server lives as long as this process."""
    if url := os.environ.get("TESTS_URL"):
        return make_url(url)
    return _server_of_this_process()


_tests = itertools.count()


def inner_url() -> URL:
    """Another server of this process, for the inner suites whose own server is not what is tested.

    It keeps the templates of the last ones only: some hundred suites make a thousand files each.
    """
    url = _inner_server()
    _make_room(url, os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0])
    return url


@functools.cache
def _make_room(url: URL, test: str) -> None:
    """Once a test, before the first of its suites: one may look for what another of them has left."""
    if next(_tests) % 4:
        return
    with psycopg.connect(
        url.set(drivername="postgresql").render_as_string(), dbname="postgres", autocommit=True
    ) as admin:
        kept = admin.execute("SELECT datname FROM pg_database WHERE datname LIKE 'dbtestcase%'").fetchall()
        for (name,) in kept if len(kept) > 20 else ():
            with contextlib.suppress(psycopg.errors.ObjectInUse):  # a suite in another thread
                admin.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name)))
                admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


@functools.cache
def _inner_server() -> URL:
    return _server_of_this_process().set(database=None)


def _server_of_this_process() -> URL:
    server = disposable_server(read_settings())
    atexit.register(server.close)
    return server.url
