"""The cache stays below a limit: the clusters of projects that were used longest ago go first."""

import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from dbtestcase.server import cluster_files


class CacheSizeTest(unittest.TestCase):
    def test_what_was_used_longest_ago_goes_first_and_the_last_one_never(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for number, name in enumerate(("base", "project-a", "project-b", "project-c")):
            (folder / f"{name}-1").mkdir()
            note = {"folder": f"{name}-1", "bytes": 400, "project": str(folder)}
            (folder / f"{name}.json").write_text(json.dumps(note), encoding="utf-8")
            os.utime(folder / f"{name}.json", (2e9 + number, 2e9 + number))
        for limit, left in ((1200, "abc"), (1199, "bc"), (1, "c")):
            with mock.patch.object(cluster_files, "LARGEST_CACHE", limit):
                cluster_files.sweep_cache(str(folder))
            names = {"base-1", "base.json"} | {f"project-{each}{end}" for each in left for end in ("-1", ".json")}
            self.assertEqual({path.name for path in folder.iterdir()}, names)


if __name__ == "__main__":
    unittest.main()
