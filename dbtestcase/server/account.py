"""Who a server runs as: database servers refuse root, so root gives it to an account that owns little else."""

from __future__ import annotations

import os
import pwd
import re
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ServerStartFailed


@dataclass(frozen=True)
class Account:
    """The user and group that a server's processes and files belong to; ``switched`` if they are not ours."""

    name: str
    uid: int
    gid: int
    switched: bool

    @property
    def popen(self) -> dict[str, Any]:
        """What ``subprocess`` needs to run a program as this account."""
        common: dict[str, Any] = {"cwd": "/"}
        return common | {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switched else common


@cache
def server_account(candidates: tuple[str, ...] = ("postgres", "nobody")) -> Account:
    """This user; for root, the first of ``candidates`` that this machine has."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        try:
            return Account(pwd.getpwuid(uid).pw_name, uid, gid, switched=False)
        except KeyError:  # containers run under numbers that no account has
            return Account(str(uid), uid, gid, switched=False)
    _refuse_powerless_root()
    for name in candidates:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if not (_is_mapped(entry.pw_uid, "uid_map") and _is_mapped(entry.pw_gid, "gid_map")):
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, switched=True)
    raise ServerStartFailed(
        "A database server refuses to run as root, and there is no account to give it to.",
        cause=f"this machine, or this user namespace, has none of the accounts {', '.join(candidates)}.",
        remedy="run the tests as an ordinary user (docker run --user 1000), or add an account: "
        "useradd --system postgres; or name a server: DBTESTCASE_URL",
    )


# Their bits in Linux's masks.  Without DAC_OVERRIDE a copy stops half-way, without KILL a server would never be ended.
_POWERS = {0: "CHOWN", 1: "DAC_OVERRIDE", 5: "KILL", 6: "SETGID", 7: "SETUID"}


def _refuse_powerless_root() -> None:
    """Containers may run as a root that cannot become anybody else."""
    found = re.search(r"^CapEff:\s*(\w+)", read(Path("/proc/self/status")), re.MULTILINE)
    if found is None:
        return
    missing = [name for bit, name in _POWERS.items() if not int(found[1], 16) >> bit & 1]
    if missing:
        raise ServerStartFailed(
            "A database server refuses to run as root, and this root may not give it to another account.",
            cause=f"the process lacks the capabilities {', '.join(f'CAP_{name}' for name in missing)} (docker run "
            "--cap-drop, a security context of Kubernetes)",
            remedy="run the tests as an ordinary user (docker run --user 1000, runAsUser: 1000), or with "
            f"{' '.join(f'--cap-add={name}' for name in missing)}; or name a server: DBTESTCASE_URL",
        )


def _is_mapped(number: int, map_name: str) -> bool:
    """Whether an account exists in the user namespace of this process."""
    lines = [line.split() for line in read(Path("/proc/self", map_name)).splitlines()]
    return not lines or any(int(first) <= number < int(first) + int(count) for first, _, count in lines)


def read(path: Path) -> str:
    """A file by which Linux tells something; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def has_entry(uid: int) -> bool:
    """Whether a number is that of an account; containers run under some that are not."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def reachable(path: Path, account: Account) -> bool:
    """Whether ``account`` may look into every folder on the way to ``path`` and read ``path`` itself."""
    if not account.switched:
        return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
    target = path.resolve()
    for step in (*reversed(target.parents), target):
        try:
            info = step.stat()
        except OSError:
            return False
        needed = 0o5 if step == target and stat.S_ISDIR(info.st_mode) else 0o4 if step == target else 0o1
        if info.st_uid == account.uid:
            needed <<= 6
        elif info.st_gid == account.gid:
            needed <<= 3
        if info.st_mode & needed != needed:
            return False
    return True
