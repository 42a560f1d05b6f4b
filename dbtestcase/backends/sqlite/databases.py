"""SQLite: databases in files and in memory, copied from a template that is a file in the cache.

A database in memory is one that several connections of this process share (SQLite's ``memdb``): each has its own
transaction, as with a file.  It lives as long as its :class:`SQLiteDatabase`.  A database in a file lies in a private
folder, in RAM where there is such a place, beside a lock file that its owner holds; the file that the URL names is not
touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from sqlalchemy import URL

from ...errors import DatabaseError
from ...reporting import doing, limit_named_by
from ...settings import Settings, read_settings
from ..filelocks import FileLock
from ..inputs import recorded, template_fingerprint
from ..interface import Backend, Database, Request
from ..names import database_name, is_template_name, template_name
from ..recipes import DerivedRecipe, Recipe
from . import files
from .existing import ExistingFile

KEPT_TEMPLATES = 24


class SQLiteBackend(Backend):
    """Makes databases in files and in memory."""

    def create(self, request: Request) -> Database:
        for _ in files.remove_orphans(files.private_folder()):
            pass
        return SQLiteDatabase(request)

    def existing(self, request: Request) -> Database:
        if files.is_in_memory(request.server_url):
            return SQLiteDatabase(request)  # nobody else can have put anything there
        return ExistingFile(request)

    def answer(self, server_url: URL) -> str:
        return f"SQLite {sqlite3.sqlite_version}, {'in memory' if files.is_in_memory(server_url) else 'in a file'}"

    def prune(self, server_url: URL, *, templates: bool, dry: bool) -> list[str]:
        removed = sorted(files.remove_orphans(files.private_folder(), dry=dry))
        cache = read_settings().cache if templates else None
        folders = [cache / "sqlite", files.private_folder()] if cache is not None else []
        return removed + [
            str(each) for folder in folders for each in _templates(folder) if _remove_unused(each, dry=dry)
        ]


class SQLiteDatabase(Database):
    """A database of this process's own, in memory or in a file."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._owner = os.getpid()
        self._lock: FileLock | None = None
        self._keeper: sqlite3.Connection | None = None
        self._file: Path | None = None
        self._template: Path | None = None
        self._using = ExitStack()
        try:
            if request.settings.cache is not None:
                self._take_template(request.settings, request.recipe)
            if files.is_in_memory(request.server_url):
                self._make_in_memory()
            else:
                self._make_file()
            if self._template is None:
                with doing(f"making the database of {request.recipe.label}", "template"):
                    request.recipe.build(files.build_url(self.url))
        except BaseException:
            self.close()
            raise

    def _take_template(self, settings: Settings, recipe: Recipe) -> None:
        """Nobody removes it while it may be copied: a class of real commits copies it again and again."""
        while True:
            template, self.made_template = _template(settings, recipe)
            with suppress(FileNotFoundError):  # somebody has removed it in this moment
                file = os.open(template, os.O_RDONLY | os.O_CLOEXEC)
                self._using.callback(os.close, file)
                with suppress(OSError):  # no locks on that file system
                    fcntl.flock(file, fcntl.LOCK_SH)
                if os.path.samestat(os.fstat(file), template.stat()):
                    self._template = template
                    return

    def _make_in_memory(self) -> None:
        self.url = files.in_memory_url(self._request.server_url, database_name(self._request.base or "memory"))
        self._keeper = files.open_uri(self.url)  # it is gone with its last connection
        if self._template is not None:
            files.replace_content(self._keeper, self._template, self.name)

    def _make_file(self) -> None:
        base = Path(self._request.base).stem.replace("/", "_")
        self._file = files.private_folder() / (database_name(base, longest=200) + ".db")
        self._lock = FileLock(self._file.with_suffix(".lock"))
        self._lock.acquire(wait=False)
        query = {key: value for key, value in self._request.server_url.query.items() if key not in ("mode", "uri")}
        self.url = self._request.server_url.set(database=str(self._file), query=query)
        if self._template is not None:
            shutil.copyfile(self._template, self._file)

    def reclone(self) -> None:
        try:
            self._make_again()
        except sqlite3.DatabaseError as error:
            if self._file is None or not files.is_spoilt(error):
                raise
            files.remove(self._file)  # somebody has overwritten it: nothing can be copied over that
            self._make_again()

    def _make_again(self) -> None:
        with closing(files.open_uri(self.url)) as connection:
            files.replace_content(connection, self._template, self.name)
        if self._template is None:
            self._request.recipe.build(files.build_url(self.url))

    def close(self) -> None:
        if self._owner != os.getpid():
            return
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._file is not None:
            files.remove(self._file)
            self._file = None
        if self._lock is not None:
            self._lock.release(remove=True)
            self._lock = None
        self._using.close()


def _template(settings: Settings, recipe: Recipe) -> tuple[Path, bool]:
    """The template's file, and whether it was made now; of several processes one makes it, the others wait."""
    folder = _template_folder(settings)

    def expected() -> Path:
        fingerprint = template_fingerprint(recipe, settings)
        return folder / f"{template_name(fingerprint, sqlite3.sqlite_version, 'sqlite')}.db"

    template = expected()
    if _complete(template):
        os.utime(template)
        return template, False
    label = recipe.label
    lock = FileLock(template.with_suffix(".lock"))
    with doing(f"waiting for another process that makes the template of {label}"):
        lock.acquire(wait=True)
    try:
        half = template.with_suffix(".half")  # only the holder of the lock writes here
        template = expected()
        if _complete(template):
            return template, False
        files.remove(half)
        try:
            make = recipe.build
            if isinstance(recipe, DerivedRecipe):
                shutil.copyfile(_template(settings, recipe.inner)[0], half)
                make = recipe.complete
            with doing(f"making the template of {label}", "template"), recorded(recipe, settings):
                make(URL.create("sqlite+pysqlite", database=str(half)))
            _settle(half)
            template = expected()  # what the build read belongs to it
            half.replace(template)
        except (sqlite3.OperationalError, OSError) as error:
            if (limit := limit_named_by(error)) is None:
                raise
            raise DatabaseError(
                f"The template of {label} cannot be written to {folder}: {error}.", cause=limit[0], remedy=limit[1]
            ) from error
        finally:
            files.remove(half)
        _remove_old(folder, template)
        return template, True
    finally:
        lock.release(remove=True)


def _template_folder(settings: Settings) -> Path:
    assert settings.cache is not None
    folder = settings.cache / "sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = "this user may not write there"
    except OSError as error:
        reason = str(error)
    if settings.cache_is_chosen:
        raise DatabaseError(
            f"The cache folder {folder} cannot be used: {reason}.",
            cause="DBTESTCASE_CACHE names a folder that this user may not write to.",
            remedy="name another folder in DBTESTCASE_CACHE, or DBTESTCASE_CACHE=off.",
        )
    return files.private_folder()  # users that have no home


def _complete(template: Path) -> bool:
    """Whether the template is there; one that something else has spoilt is made again."""
    try:
        with template.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except FileNotFoundError:
        return False


def _settle(file: Path) -> None:
    """Bring everything into the one file, whatever journal the recipe chose, and make it a database if it is empty."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if journal == "wal":
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")


def _remove_old(folder: Path, current: Path) -> None:
    def used(path: Path) -> float:
        with suppress(FileNotFoundError):
            return path.stat().st_mtime
        return 0.0

    others = [path for path in _templates(folder) if path != current]
    for old in sorted(others, key=used, reverse=True)[KEPT_TEMPLATES - 1 :]:
        _remove_unused(old)


def _templates(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.db") if is_template_name(path.stem))


def _remove_unused(template: Path, *, dry: bool = False) -> bool:
    """Remove a template from which nobody may make a database again; whether there was one."""
    with suppress(FileNotFoundError), template.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no locks on that file system
            pass
        if not dry:
            files.remove(template)
        return True
    return False


BACKEND = SQLiteBackend()
