"""Which templates are dropped once a new one was added: those of one model are kept by their model, not its size."""

import json
import unittest
from collections.abc import Sequence

from dbtestcase.backends.postgresql.catalog import KEPT_IN_ALL, KEPT_OF_RECIPE, TEMPLATE, Catalog, outdated

LABELS = [
    "metadata of user",
    "metadata of user, post",
    "metadata of user, post, tag",
    "metadata of user, post, tag, … (4 tables)",
    "metadata of user, post, tag, … (300 tables)",
]


class TemplatesToDropTest(unittest.TestCase):
    def dropped(self, labels: list[str], kinds: Sequence[object] = ()) -> list[int]:
        """The numbers of those that are dropped; the last one was just made."""
        kinds = kinds or ["committing" in label for label in labels]
        names = [f"dbtestcase_template_{number:031x}" for number in range(len(labels))]
        comments: dict[str, str | None] = {
            name: TEMPLATE + json.dumps({"label": label, "kind": kind, "used": number})
            for number, (name, label, kind) in enumerate(zip(names, labels, kinds, strict=True))
        }
        return sorted(names.index(name) for name in outdated(Catalog(False, set(), comments), names[-1]))

    def test_a_model_that_grows_is_one_model(self) -> None:
        self.assertEqual(self.dropped(LABELS), list(range(len(LABELS) - KEPT_OF_RECIPE)))

    def test_another_model_and_its_committing_twin_are_others(self) -> None:
        others = ["metadata of invoice, post, tag, … (4 tables)", "alembic.ini"]
        twins = [f"{label} (committing)" for label in LABELS[:2]]
        self.assertEqual(self.dropped([*others, *twins, *LABELS[-3:]]), [])

    def test_classes_that_load_rows_of_their_own_do_not_drop_each_others(self) -> None:
        self.assertEqual(self.dropped(LABELS, range(len(LABELS))), [])

    def test_in_all_so_many_are_kept(self) -> None:
        labels = [f"metadata of t{number}" for number in range(KEPT_IN_ALL + 2)]
        self.assertEqual(self.dropped(labels), [0, 1])


if __name__ == "__main__":
    unittest.main()
