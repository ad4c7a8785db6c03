"""The margins by which a new version may be worse than the one in service, without torch for the command line."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from bundle import schema
from training.config import fields


def _says(text: str, low: float = -math.inf, high: float = math.inf) -> dict[str, Any]:
    """As of a recipe's field; and a record that was written before the field existed stays readable."""
    return {**fields.says(text, low, high), **schema.ADDED}


@dataclass(frozen=True)
class GatePolicy:
    """Checks its values: raises `RecipeInvalid` with the field, its value and what was expected.

    A loss is a reason to refuse where it is over its margin and more than chance; the margins say what matters, the
    tests in `gate` what can be known from so many photos.
    """

    max_loss: float = field(
        default=0.02, metadata=_says("Largest loss of top-1 on the same photos, as a share of them.", 0, 1)
    )
    max_class_loss: float = field(
        default=0.05, metadata=_says("Largest loss of any class's recall; small classes need clearer losses.", 0, 1)
    )
    max_nll_loss: float = field(
        default=0.05, metadata=_says("Largest rise of the negative log-likelihood, in nats a photo.", 0)
    )
    max_calibration_loss: float = field(
        default=0.02, metadata=_says("Largest rise of the expected calibration error.", 0, 1)
    )
    max_slowdown: float = field(
        default=1.5,
        metadata=_says("Largest factor in time for one photo on one CPU thread, from bytes to answer.", 0),
    )
    max_growth: float = field(default=2.0, metadata=_says("Largest factor in the size of the model's file.", 0))
    require_better: bool = field(
        default=False, metadata=_says("Publish only what is significantly more accurate, not what is as good.")
    )
    allow_label_change: bool = field(
        default=False, metadata=_says("Let a version go without classes that the one in service knows.")
    )

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            kind = bool if isinstance(setting.default, bool) else float
            fields.check(setting, kind, getattr(self, setting.name))

    def record(self) -> dict[str, str | int | float | bool | None]:
        """Field → value, for JSON."""
        return dataclasses.asdict(self)
