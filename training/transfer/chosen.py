"""The record of a choice that the recipe left open: `chosen.json` in the run's folder."""

import dataclasses
from dataclasses import dataclass

from training.config import Recipe, Strategy
from training.transfer.similarity import Similarity

CHOSEN = "chosen.json"


@dataclass(frozen=True)
class Chosen:
    """What stands in the recipe's place, why in two sentences, and what was measured, where anything was."""

    strategy: Strategy
    keep_blocks: int
    reasons: tuple[str, str]
    similarity: Similarity | None = None

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe with nothing left open."""
        return dataclasses.replace(recipe, strategy=self.strategy, keep_blocks=self.keep_blocks)


def is_open(recipe: Recipe) -> bool:
    """Whether something must be measured before this recipe can be trained."""
    return recipe.strategy == "auto" or (recipe.strategy == "truncate" and recipe.keep_blocks == 0)
