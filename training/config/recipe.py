"""The recipe: all groups of settings as one flat record, the same in TOML, on the command line and in the manifest."""

import dataclasses
import typing
from dataclasses import dataclass

from training.config.augmentation import Augmentation
from training.config.fields import check
from training.config.optimisation import Optimisation
from training.config.regularisation import Regularisation
from training.config.transfer import Transfer
from training.errors import RecipeInvalid

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Recipe(Regularisation, Augmentation, Optimisation, Transfer):  # the last base's fields come first
    """Checks its values: raises `RecipeInvalid` with the field, its value and what was expected."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for setting in dataclasses.fields(self):
            check(setting, hints[setting.name], getattr(self, setting.name))
        if self.crop > self.resize:
            raise RecipeInvalid("crop", self.crop, f"at most resize, which is {self.resize}")

    def record(self) -> dict[str, Scalar]:
        """Field → value, for JSON."""
        return dataclasses.asdict(self)
