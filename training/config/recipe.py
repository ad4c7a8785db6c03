"""The recipe as one flat record, the same in TOML, on the command line and in the manifest; and the machine."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Literal

from training.config.augmentation import Augmentation
from training.config.fields import check
from training.config.optimisation import Optimisation, Regularisation
from training.config.transfer import Transfer
from training.errors import RecipeInvalid


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes. No field changes the result, apart from the device's arithmetic."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = (
        None  # processes that read and augment photos; None is one a core, 0 reads in the trainer itself
    )
    checkpoint_seconds: float = 120.0  # work that a killed fine-tuning loses at most, against time spent on writing


Scalar = str | int | float | bool | None

GROUPS: dict[str, type] = {
    "transfer": Transfer,
    "optimisation": Optimisation,
    "augmentation": Augmentation,
    "regularisation": Regularisation,
}
"""Name of a table in a configuration file → its settings."""


def group_of(field: str) -> str:
    """The name of the group that a field of `Recipe` belongs to."""
    return next(name for name, group in GROUPS.items() if field in group.__dataclass_fields__)  # type: ignore[attr-defined]  # all of them are dataclasses


@dataclass(frozen=True)
class Recipe(Regularisation, Augmentation, Optimisation, Transfer):  # the last base's fields come first
    """Checks its values: raises `RecipeInvalid` with the field, its value and what was expected."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for setting in dataclasses.fields(self):
            check(setting, hints[setting.name], getattr(self, setting.name))
        if self.crop > self.resize:
            raise RecipeInvalid("crop", self.crop, f"at most resize, which is {self.resize}")
        if 0 < self.stored_size < self.train_size:
            least = f"0, or at least train_size, which is {self.train_size}"
            raise RecipeInvalid("stored_size", self.stored_size, least)
        if self.width != 1 and self.backbone != "mobilenet_v2":
            raise RecipeInvalid("width", self.width, f"1 for {self.backbone}: only mobilenet_v2 comes in other widths")
        if self.head_init == "zeros":
            reason = "units that start alike get the same gradient, and stay alike for ever"
            raise RecipeInvalid("head_init", "zeros", f"normal, uniform, orthogonal, kaiming or xavier: {reason}")

    def record(self) -> dict[str, Scalar]:
        """Field → value, for JSON."""
        return dataclasses.asdict(self)
