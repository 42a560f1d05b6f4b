"""``python -m dbtestcase prepare``: clusters initialised in advance, for every user of a machine or of an image.

A container that runs under a number without an account can run a server, and cannot initialise one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..errors import ConfigurationError, ProgramsNotFound
from ..settings import Settings
from . import cluster, mariadb, postgresql
from .cache import ClusterCache, cache_root
from .programs import find_programs


def prepare_cache(settings: Settings) -> Iterator[str]:
    """Initialise a PostgreSQL, and a MariaDB where its programs are, in the cache, for everybody; what was prepared.

    :raises ConfigurationError: there is to be no cache.
    """
    root = cache_root(dataclasses.replace(settings, cache_is_chosen=True))
    if root is None:
        raise ConfigurationError(
            "There is no cache to prepare.",
            cause="DBTESTCASE_CACHE is off.",
            remedy="name a folder that the tests' user may read: DBTESTCASE_CACHE=/opt/dbtestcase",
        )
    settings = dataclasses.replace(settings, stay=0.0)
    with postgresql.start(settings) as server:  # the proof that it can be started
        yield _publish(ClusterCache(root, cluster.cache_name(find_programs(settings))), f"PostgreSQL {server.version}")
    try:
        programs = mariadb.find_mariadb()
    except ProgramsNotFound:
        return
    with mariadb.start(settings) as other:
        yield _publish(ClusterCache(root, mariadb.cache_name(programs)), f"MariaDB {other.version}")


def _publish(cache: ClusterCache, title: str) -> str:
    with cache.changing():
        found = cache.read(cache.base)
        assert found is not None, "a server that was started with a cache is in it"
        cache.publish_base(found.folder, public=True)
    return f"{title} in {cache.folder}"
