"""What a run costs from start to end: python -m tests.benchmarks.bench_warm_run

The example of users, warm, the whole process: beside its imports alone; on a server that starts and ends with it, and
on one that stays.  On the processor counts what the process and the children that it waits for take.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.measure import finish, tree_seconds, verdict
from tests.support.runners import ROOT

ROUNDS = 9
TESTS = "tests.test_repository"


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name, "users")
        shutil.copytree(ROOT / "docs" / "examples" / "users", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "setup.cfg").touch()
        environment = {"PYTHONPATH": f"{ROOT}:{folder}"}
        run = ["-m", "unittest", "-q", TESTS]
        variants = {
            "imports": (["-c", f"import unittest.main, unittest.async_case, {TESTS}"], environment),
            "run": (run, environment),
            "run, server stays": (run, environment | {"DBTESTCASE_STAY": "60s"}),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        for number in range(ROUNDS + 1):
            for variant, (arguments, env) in variants.items():
                measured = tree_seconds(arguments, folder, env)
                if number:
                    found[variant].append(measured)
    for variant, seconds in found.items():
        wall, cpu = (statistics.median(each) for each in zip(*seconds, strict=True))
        print(f"  {variant:<20} {wall:.3f} s, on the processor {cpu:.3f} s; fastest {min(seconds)[0]:.3f} s")

    def over(variant: str) -> float:
        return statistics.median(a[0] - b[0] for a, b in zip(found[variant], found["imports"], strict=True))

    def share(variant: str) -> float:
        return statistics.median(a[1] / b[1] for a, b in zip(found[variant], found["imports"], strict=True))

    finish(
        [
            verdict("share of the imports, on the processor", share("run"), 1.35),
            verdict("seconds over the imports", over("run"), 0.12),
            verdict("seconds over the imports, server stays", over("run, server stays"), 0.05),
        ]
    )


if __name__ == "__main__":
    main()
