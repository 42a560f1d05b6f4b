"""How much room there is for a server's data: of the file system, and of the memory that a container may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .account import read
from .cluster_files import RESERVE, WAS_FULL
from .watcher import OWN

MIB = 1024 * 1024
_UNLIMITED = 1 << 60  # cgroup v1 writes some number near 2**63 where there is no limit


def room_in(place: Path) -> int:
    """Bytes that an ordinary user may still write there; where that is memory, no more than may still be used."""
    info = os.statvfs(place)
    free = info.f_bavail * info.f_frsize
    return min(free, memory_left()) if _is_memory(place) else free


def memory_left(cgroup: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> int:
    """Bytes of memory that this process may still use: of the machine, and of each control group around it."""
    return max(min([_UNLIMITED, *_of_the_machine(proc), *_of_the_groups(cgroup, proc)]), 0)


def _of_the_machine(proc: Path) -> Iterator[int]:
    lines = read(proc / "meminfo").splitlines()
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    if "MemAvailable" in found:
        yield found["MemAvailable"] + found.get("SwapFree", 0)


def _of_the_groups(cgroup: Path, proc: Path) -> Iterator[int]:
    for line in read(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            names, inactive = ("memory.max", "memory.current"), "inactive_file"
            roots = [cgroup, cgroup / "unified"]
        elif "memory" in controllers.split(","):
            names, inactive = ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
            roots = [cgroup / "memory", cgroup / controllers]
        else:
            continue
        steps = [part for part in path.split("/") if part]
        for root in roots:  # a limit of any group above holds as well; a container may see its own group as the root
            for depth in range(len(steps), -1, -1):
                yield from _of_one(root.joinpath(*steps[:depth]), *names, inactive)


def _of_one(group: Path, limit_name: str, usage_name: str, inactive: str) -> Iterator[int]:
    limit, usage = read(group / limit_name).strip(), read(group / usage_name).strip()
    if limit.isdigit() and usage.isdigit() and int(limit) < _UNLIMITED:
        # what the kernel has read from files, and gives up when memory is wanted, counts as used there
        words = dict(line.split(maxsplit=1) for line in read(group / "memory.stat").splitlines() if " " in line)
        yield int(limit) - int(usage) + int(words.get(inactive, 0))


def _is_memory(place: Path) -> bool:
    """Whether files there are memory (tmpfs)."""
    found = ("", "")
    real = os.path.realpath(place)
    for line in read(Path("/proc/self/mounts")).splitlines():
        _, point, kind, *_ = line.split()
        point = point.replace("\\040", " ")
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1] in ("tmpfs", "ramfs")


def is_out_of_room(folder: Path) -> bool:
    """Whether a server's folder says that it has found a place full, and that its watcher gives up its spare room."""
    if not os.path.isdir(f"{folder}{OWN}"):
        return False
    info = os.statvfs(folder)
    return os.path.exists(f"{folder}{OWN}/{WAS_FULL}") or info.f_bavail * info.f_frsize < RESERVE


def what_fills(folder: Path, *, most: int = 4) -> str:
    """The largest things below a folder, with their sizes, such as ``data/base/16390 80 MiB``."""
    sizes: dict[str, int] = {}
    for parent, _, names in os.walk(folder):
        inner = os.path.relpath(parent, folder)
        part = "/".join(inner.split(os.sep)[:3])
        for name in names:
            try:
                sizes[part] = sizes.get(part, 0) + os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    largest = sorted(sizes, key=lambda part: sizes[part], reverse=True)[:most]
    return ", ".join(f"{part} {sizes[part] // MIB} MiB" for part in largest if sizes[part] >= MIB)
