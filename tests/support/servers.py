"""A real PostgreSQL for the tests: the one that TESTS_URL names, else a disposable one of this process."""

import atexit
import functools
import os

from sqlalchemy import URL, make_url

from dbtestcase.server import disposable_server
from dbtestcase.settings import read_settings


@functools.cache
def postgresql_url() -> URL:
    """A server's maintenance database, as a superuser; the server lives as long as this process."""
    if url := os.environ.get("TESTS_URL"):
        return make_url(url)
    server = disposable_server(read_settings())
    atexit.register(server.close)
    return server.url
