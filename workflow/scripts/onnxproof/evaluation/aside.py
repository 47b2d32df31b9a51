"""Labelled rows that are kept aside for the search for a recipe: the gate never sees them."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

#: So many rows are kept aside at most, whatever their share: a search runs all of them with each recipe.
MOST_ASIDE = 500
#: What a search with labels is for: models that read texts alone, and metrics that are cheap and depend on few inputs.
SEARCHED_USES = ("text-classification", "text-pair-classification", "sentence-similarity", "feature-extraction")
SEARCHED_METRICS = ("accuracy", "top_1", "pairs_spearman", "ndcg_at_10")
#: The tasks of such models, as a configuration names them.
SEARCHED_TASKS = ("text-classification", "sentence-similarity", "feature-extraction")


class Chooser:
    """Chooses the rows that are kept aside, one row after the other, by a hash of their inputs.

    Rows with the same inputs go the same way, so that no input is on both sides. The same rows in the same order give
    the same choice on every machine.
    """

    def __init__(self, share: float | None, most: int = MOST_ASIDE) -> None:
        """Choose about this share of the inputs, the first ``most`` of them; none where it is None."""
        self.below = int((share or 0.0) * 2**64)
        self.most = most
        self.chosen: set[bytes] = set()

    def chooses(self, inputs: Sequence[Any]) -> bool:
        """Tell whether the row with these values of its input's fields is kept aside."""
        content = json.dumps(list(inputs), ensure_ascii=False, sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
        if digest in self.chosen:
            return True
        if len(self.chosen) == self.most or int.from_bytes(digest[:8], "big") >= self.below:
            return False
        self.chosen.add(digest)
        return True
