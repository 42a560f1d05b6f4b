"""A disposable PostgreSQL: initialised once, copied into RAM, started without the promises that a disk needs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL

from ..errors import ServerError, ServerStartFailed
from ..reporting import doing, limit_named_by, say
from ..settings import Settings
from .account import Account, has_entry, server_account
from .base import START_SECONDS, ClusterServer, start_in_room
from .cache import CachedCluster, ClusterCache, TemplateFiles, cache_root
from .cluster import altered_settings, cache_name, configuration, initdb_options, program_environment
from .cluster_files import Unreadable, copy_tree, remove_tree
from .folders import RAM, RunFolder, is_full, run_places, temp_places
from .process import WatcherProcess
from .programs import Programs, find_programs, programs_for
from .room import MIB, room_in
from .staying import KEEP_HOURS, MOST_KEPT, end_oldest, staying_name, take
from .template_files import TemplatesOnDemand

INITIALISED_SIZE = 30 * MIB
_TEMPLATES = ("base/1", "base/4")
"""The folders of template1 and (since 15) of template0, which nobody connects to."""
_DATABASES = """
SELECT datname, datallowconn, oid::text FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')
"""


def start(settings: Settings, meanwhile: Callable[[], object] = lambda: None) -> PostgreSQLServer:
    """Start a PostgreSQL; see :func:`dbtestcase.server.disposable_server`."""
    with doing("starting a disposable PostgreSQL"), ExitStack() as starting:
        account = server_account()
        programs = programs_for(account, find_programs(settings), starting)
        root = cache_root(settings)
        cache = ClusterCache(root, cache_name(programs)) if root else None

        def make(place: Path) -> PostgreSQLServer:
            return PostgreSQLServer(programs, account, place, cache, meanwhile)

        if not settings.stay:
            return start_in_room("PostgreSQL", account, cache, INITIALISED_SIZE, make)
        name = staying_name(programs, cache)
        found = take(run_places(account), name)
        if found is not None:
            server = PostgreSQLServer.taken(programs, account, cache, *found)
        else:
            server = start_in_room("PostgreSQL", account, cache, INITIALISED_SIZE, make)
        server.stay(settings.stay, name)
        return server


class PostgreSQLServer(ClusterServer):
    """See :class:`dbtestcase.server.Server`."""

    title = "PostgreSQL"
    ready = "database system is ready to accept connections"
    remedy = (
        "python -m dbtestcase doctor shows what is used; DBTESTCASE_POSTGRES_BIN chooses other programs, "
        "DBTESTCASE_URL a server that is there."
    )
    stop_signal = signal.SIGQUIT

    @classmethod
    def taken(
        cls, programs: Programs, account: Account, cache: ClusterCache | None, path: Path, connection: socket.socket
    ) -> PostgreSQLServer:
        """One that another run has left in a folder, ours from now on; ``connection`` leads to its watcher."""
        server = cls.__new__(cls)
        server._begin(programs, account, path.parent.parent, cache)
        folder = RunFolder(path, path.with_suffix(".lock"), -1)
        server._watcher = WatcherProcess.taken(folder, connection)
        server._use(folder)
        return server

    def _use(self, folder: RunFolder) -> None:
        super()._use(folder)
        self._is_kept, self._is_complete = False, True
        self._completed: dict[str, Any] | None = None
        self._templates: TemplatesOnDemand | None = None
        query = {"host": str(folder.path), "port": "5432"}
        self.url = URL.create("postgresql+psycopg", username="postgres", database="postgres", query=query)

    # -- starting

    def _left_out(self, cache: ClusterCache, cluster: CachedCluster) -> list[TemplateFiles]:
        self._templates = TemplatesOnDemand(cache, cluster, self.data, self._run_folder.own, self._owner)
        return list(self._templates.absent.values())

    def _later(self, cluster: CachedCluster) -> list[str]:
        found = [folder for folder in _TEMPLATES if (cluster.folder / folder / "PG_VERSION").is_file()]
        self._is_complete = not found
        return found

    def _initialise(self) -> None:
        self._templates, self._is_complete = None, True
        command = [str(self._programs.bin / "initdb"), "-D", str(self.data), *initdb_options(self._programs)]
        with doing(f"initialising PostgreSQL {self.version}, once"):
            done = self._run(command)
            if done.returncode and "invalid locale" in done.stderr:  # systems without C.UTF-8, before 17
                done = self._run([option.replace("--locale=C.UTF-8", "--locale=C") for option in command])
        if done.returncode:
            if "No space left" in done.stderr:
                raise OSError(28, "No space left on device", str(self.data))
            if "could not look up effective user ID" in done.stderr:
                raise self._without_account(done.stderr)
            raise self._failed("cannot be initialised", done.stderr)

    def _without_account(self, log: str) -> ServerStartFailed:
        uid = self._account.uid
        return ServerStartFailed(
            f"PostgreSQL {self.version} cannot be initialised: {log.strip().splitlines()[-1]}.",
            cause=f"uid {uid} has no entry in /etc/passwd (a container that was started with a number as its user).",
            remedy="initialise when the image is built: RUN DBTESTCASE_CACHE=/opt/dbtestcase python -m dbtestcase "
            "prepare, and ENV DBTESTCASE_CACHE=/opt/dbtestcase; or give the user an entry: "
            f"echo 'tests:x:{uid}:{self._account.gid}::/tmp:/bin/sh' >> /etc/passwd.",
        )

    def _command(self) -> list[str]:
        # Not in the data, which are the server's account's: what this user writes lies in a folder of its own.
        text = configuration(self._folder, room_in(self._place), self._programs.major)
        self._configuration.write_text(text, encoding="utf-8")
        self._configuration.chmod(0o644)
        return [str(self._programs.bin / "postgres"), *self._on(self.data)]

    @property
    def _configuration(self) -> Path:
        return self._run_folder.own / "postgresql.conf"

    def _on(self, data: Path) -> list[str]:
        """The arguments for a server on these data, with our configuration."""
        return ["-D", str(data), "-c", f"config_file={self._configuration}"]

    def _environment(self) -> dict[str, str]:
        return program_environment()

    # -- templates

    def _complete_start(self) -> None:
        """Wait for what was copied after the start.

        :raises ServerError: it could not be.
        """
        if self._is_complete or not self._watcher.ours or self._closed:
            return
        event = self._completed = self._completed or self._watcher.event(START_SECONDS)  # said once, told to each class
        if event is None:
            raise self._watcher.ended()
        if event["event"] != "complete":
            cause, remedy = limit_named_by(event.get("text")) or (
                "the cache was emptied while the server started.",
                "run the tests again.",
            )
            raise ServerError(
                f"The databases that others are made from are not on the disposable PostgreSQL: {event.get('text')}.",
                cause=cause,
                remedy=remedy,
            )
        self._is_complete = True

    def fetch(self, template: str) -> bool:
        if not template:
            self._complete_start()
            return True
        if self._templates is None or not self._watcher.ours or self._closed:
            return True
        return self._templates.fetch(template)

    def fetch_all(self) -> None:
        self._complete_start()
        if self._templates is not None and self._templates.absent and self._watcher.ours and not self._closed:
            with self._connect() as connection:
                self._complete(connection)

    def _complete(self, connection: psycopg.Connection) -> list[tuple[str, bool, str]]:
        """Have the files of every template there, or drop it; the databases, and the OID of each."""
        databases = connection.execute(_DATABASES).fetchall()
        if self._templates is None:
            return databases
        there = {name for name, _, _ in databases}
        for name in self._templates.absent:
            if name not in there:
                self._templates.forget(name)
            elif not self._is_fetched(self._templates, name):
                connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
                databases = [each for each in databases if each[0] != name]
        return databases

    @staticmethod
    def _is_fetched(templates: TemplatesOnDemand, name: str) -> bool:
        try:
            return templates.fetch(name)
        except ServerError as error:
            say(f"the template database {name} is left out: {error.what}")
            return False

    def persist(self) -> None:
        if self._cache is None or not self._cache.writable or not self._watcher.ours or self._closed:
            return
        if not has_entry(self._account.uid):  # PostgreSQL's single-user mode refuses who has no name
            return
        cache = self._cache
        self._complete_start()
        with self._connect() as connection:
            databases = connection.execute(_DATABASES).fetchall()
            known = cache.read(cache.project)
            self._unsaved = False
            if {name for name, accepts, _ in databases if not accepts} <= set(known.templates if known else ()):
                return
            databases = self._complete(connection)
            # what is to be dropped from the copy anyway need not be copied
            doomed = frozenset(f"base/{oid}" for _, accepts, oid in databases if accepts)
            stage = self._stage(connection, doomed)
        if stage is None:
            return
        quoted = ['"' + name.replace('"', '""') + '"' for name, accepts, _ in databases if accepts]
        templates = {name: f"base/{oid}" for name, accepts, oid in databases if not accepts}
        self._watcher.order(
            "run",
            command=[str(self._programs.bin / "postgres"), "--single", *self._on(stage), "postgres"],
            env=program_environment(),
            input="".join(f"DROP DATABASE {name};\n" for name in quoted),
            source=str(stage),
            pointer=str(cache.project),
            lock=str(cache.lock),
            note=cache.note(templates),
        )

    def _connect(self) -> psycopg.Connection:
        where = {"host": str(self._folder), "hostaddr": "", "options": ""}  # whatever the environment says
        return psycopg.connect(**where, port=5432, user="postgres", dbname="postgres", autocommit=True)  # type: ignore[arg-type]

    def _stage(self, connection: psycopg.Connection, doomed: frozenset[str]) -> Path | None:
        """Copy the running server's files at a moment when nothing is written; ``None`` if there was none."""
        stage = self._run_folder.own / f"stage-{os.urandom(4).hex()}"
        with doing("keeping the new template for the next runs"):
            for _ in range(3):
                connection.execute("CHECKPOINT")
                before = _position(connection)
                try:
                    copy_tree(str(self.data), str(stage), *self._owner, leave_out=doomed)
                    quiet = _position(connection) == before
                except Unreadable:  # a file went away under our hands: something is being written
                    quiet = False
                except OSError as error:
                    remove_tree(str(stage))
                    if not is_full(error):
                        raise
                    say(f"the new template is not kept for the next runs: {self._place} is full")
                    return None
                if quiet and (altered := altered_settings(stage)):
                    remove_tree(str(stage))
                    say(f"the new template is not kept for the next runs: ALTER SYSTEM has set {', '.join(altered)}")
                    return None
                if quiet:
                    for name in ("postmaster.pid", "postmaster.opts"):
                        with suppress(FileNotFoundError):
                            (stage / name).unlink()
                    return stage
                remove_tree(str(stage))
        self._unsaved = True  # others are writing: once more at the end
        return None

    # -- ending

    def stay(self, seconds: float, name: str) -> None:
        """Wait for the next run when this process has ended; see :mod:`dbtestcase.server.staying`."""
        self.fetch_all()
        self._watcher.order("stay", seconds=seconds, name=name)

    def keep(self) -> None:
        if not self._is_kept and self._watcher.ours and not self._closed:
            self.fetch_all()
            self._watcher.order("keep", seconds=KEEP_HOURS * 3600)
            self._is_kept = True
            end_oldest([RAM, *temp_places()], spared=MOST_KEPT - 1)

    def close(self, *, wait: bool = True) -> None:
        if self._closed or not self._watcher.ours:
            return
        try:
            if self._unsaved:
                self.persist()
        finally:
            self._closed = True
            for event in self._watcher.close(wait=wait or self._is_kept):
                if event["event"] == "published" and event["problem"]:
                    say(f"the new templates are not kept for the next runs: {event['problem']}")
                elif event["event"] == "kept":
                    say(
                        f"PostgreSQL stays for {KEEP_HOURS} hours with the rows of failing tests; to end it: "
                        "python -m dbtestcase prune"
                    )


def _position(connection: psycopg.Connection) -> str:
    """How far the write-ahead log has come: it moves with every change of the data."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])
