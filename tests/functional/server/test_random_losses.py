"""Whatever a run loses at whatever moment: the next one passes, and nothing is left (see ``tests.support.losses``)."""

import random
import subprocess
import sys
import unittest

from tests.support.farm import require_namespaces
from tests.support.runners import ROOT, inner_environment
from tests.support.samples import LONG

NAMESPACES = ("--mount", "--pid", "--fork", "--mount-proc", "--uts")


class RandomLossesTest(unittest.TestCase):
    def test_the_next_run_passes_and_nothing_is_left(self) -> None:
        require_namespaces(*NAMESPACES)
        rounds, seed = 200 if LONG else 1, random.randrange(1 << 30)
        script = 'mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm && "$@"; exit $?'
        command = ["unshare", *NAMESPACES, "--kill-child", "sh", "-c", script, "sh", sys.executable, "-m"]
        done = subprocess.run(
            [*command, "tests.support.losses", str(rounds), str(seed)],
            cwd=ROOT,
            env=inner_environment(),
            capture_output=True,
            text=True,
            timeout=7200 if LONG else 600,
            check=False,
        )
        self.assertEqual(done.returncode, 0, f"seed {seed}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    unittest.main()
