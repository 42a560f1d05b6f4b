"""What a disposable PostgreSQL's cluster is like: how it is initialised and configured, and its name in the cache."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .programs import Programs
from .room import MIB

# Segments of the log are not kept for later use: they would be copied in every run.
# Shared memory of parallel plans: files in the data folder, so that a killed server leaves nothing elsewhere.
CONFIGURATION = """\
listen_addresses = ''
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
port = 5432
max_connections = 100
max_prepared_transactions = 20
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
min_wal_size = 2MB
wal_recycle = off
wal_init_zero = off
max_wal_size = {log}MB
checkpoint_timeout = 1h
log_checkpoints = off
log_timezone = UTC
timezone = UTC
datestyle = 'iso, mdy'
lc_messages = C
lc_monetary = C
lc_numeric = C
lc_time = C
default_text_search_config = 'pg_catalog.english'
"""


def configuration(socket: Path, room: int, major: int) -> str:
    """The whole of ``postgresql.conf``; of ``room`` bytes for the data an eighth may be log, 256 MB at most."""
    log = min(max(room // 8 // MIB, 8), 256)
    text = CONFIGURATION.format(socket=str(socket).replace("'", "''"), log=log)
    return text + ("io_method = sync\n" if major >= 18 else "")  # the data lie in memory: no processes that read ahead


def initdb_options(programs: Programs) -> list[str]:
    """How a cluster is initialised; what is here decides the cluster's name in the cache."""
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--wal-segsize=1"]
    if programs.major >= 16:
        options += ["--set=wal_recycle=off", "--set=wal_init_zero=off", "--set=min_wal_size=2MB"]
    if programs.major >= 17:
        options += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        options += ["--locale=C.UTF-8"]
    if programs.major >= 18:
        options += ["--no-data-checksums"]
    return options


def cache_name(programs: Programs) -> str:
    """The name of the cache folder for these programs' clusters."""
    digest = hashlib.sha256("\0".join(initdb_options(programs)).encode()).hexdigest()[:8]
    return f"postgresql-{programs.version}-{digest}"


def program_environment() -> dict[str, str]:
    """This process's variables without those that PostgreSQL's programs would obey."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return keep | {"LC_ALL": "C", "TZ": "UTC"}


def altered_settings(data: Path) -> list[str]:
    """What ``ALTER SYSTEM`` has left in a cluster's files."""
    try:
        text = (data / "postgresql.auto.conf").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line.partition("=")[0].strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
