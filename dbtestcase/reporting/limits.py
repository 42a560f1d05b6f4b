"""Limits of the machine, a server and a role: known by what is said where one is reached; what they are called."""

from __future__ import annotations

import errno
import re

_LIMITS: tuple[tuple[str, str, str], ...] = (
    (
        r"too many open files|insufficient file descriptors",
        "the limit of open files (ulimit -n) is too low for what runs here.",
        "raise it: ulimit -n 4096 (docker run --ulimit nofile=4096, LimitNOFILE= of systemd), or run fewer processes.",
    ),
    (
        r"max_locks_per_transaction",
        "one transaction holds more locks than the server has room for (max_locks_per_transaction × max_connections).",
        "raise max_locks_per_transaction of the server (64 by default; 256 is enough for some 20,000 tables and "
        "indexes), or make fewer tables in one transaction.",
    ),
    (
        r"too many clients|too many connections|remaining connection slots",
        "the server's max_connections, or the limit of the role or the database, is reached.",
        "run fewer processes, or raise max_connections to twice the processes of all hosts and what the application "
        "opens.",
    ),
    (
        r"disk quota exceeded",
        "the disk quota of this user is used up.",
        "make room, or set TMPDIR (for data) and DBTESTCASE_CACHE (for the cache) to a disk without a quota.",
    ),
    (
        r"no space left on device|disk is full",
        "a file system is full.",
        "make room there; docker run --shm-size=1g makes more RAM, TMPDIR names another disk.",
    ),
    (
        r"could not fork|resource temporarily unavailable|cannot fork",
        "no more processes may be started: ulimit -u, or the pids limit of the container.",
        "raise it (ulimit -u 4096, docker run --pids-limit 1000), or run fewer processes.",
    ),
    (
        r"cannot allocate memory|out of memory|could not map anonymous shared memory",
        "there is not enough memory: the machine's, or what the container may use (docker run --memory).",
        "give it more, or run fewer processes; a disposable server takes some 60 MiB and its data.",
    ),
    (
        r"could not create (semaphores|shared memory segment)",
        "the kernel's limits of System V memory or semaphores (kernel.shmmax, kernel.sem) are too low.",
        "raise them with sysctl.",
    ),
    (
        r"file too large",
        "the limit of a file's size (ulimit -f) is too low for what a server writes.",
        "raise it: ulimit -f unlimited.",
    ),
    (
        r"no locks available",
        "a file system without locks, such as NFS without its lock service.",
        "set DBTESTCASE_CACHE (for the cache) and TMPDIR (for data) to folders on a local disk.",
    ),
    (
        r"max_stack_depth",
        "the limit of a program's stack (ulimit -s) is too low for PostgreSQL.",
        "raise it: ulimit -s 8192.",
    ),
    (
        r"read-only file system",
        "the file system is mounted read-only.",
        "set TMPDIR and DBTESTCASE_CACHE to folders that can be written (docker run --tmpfs /tmp).",
    ),
    (
        r"authentication failed for|is not permitted to log in|no pg_hba\.conf entry|access denied .*using password",
        "the server refuses the role: its name or password is wrong or has expired, or it may not log in from here.",
        "correct role and password in the URL, or let an administrator of the server do it there.",
    ),
)
_NUMBERS = {
    errno.EMFILE: 0,
    errno.ENFILE: 0,
    errno.EDQUOT: 3,
    errno.ENOSPC: 4,
    errno.EAGAIN: 5,
    errno.ENOMEM: 6,
    errno.EFBIG: 8,
    errno.ENOLCK: 9,
}


def limit_named_by(said: object) -> tuple[str, str] | None:
    """The known limit that is the cause of an error (or of its text), and what to do; ``None`` where it is none."""
    if isinstance(said, OSError) and said.errno in _NUMBERS:
        return _LIMITS[_NUMBERS[said.errno]][1:]
    text = str(said)
    for pattern, cause, remedy in _LIMITS:
        if re.search(pattern, text, re.IGNORECASE):
            return cause, remedy
    return None
