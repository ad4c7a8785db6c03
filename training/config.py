"""The recipe of a run: every number that decides what is learned, in one frozen record that is saved with the run.

Each field's text says what it trades; the command line shows the same text. Nothing here needs torch.
"""

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from training.errors import RecipeInvalid

Strategy = Literal["head", "finetune"]
Scalar = str | int | float | bool | None


def _says(text: str, low: float = -math.inf, high: float = math.inf) -> dict[str, Any]:
    """A field's meaning and the closed range that it may lie in."""
    return {"text": text, "low": low, "high": high}


@dataclass(frozen=True)
class Recipe:
    """Checks its values: raises `RecipeInvalid` with the field, its value and what was expected."""

    strategy: Strategy = field(
        default="finetune",
        metadata=_says(
            "head: train only a new last layer (a minute). finetune: then train everything (better, and far slower).",
        ),
    )
    backbone: Literal["mobilenet_v2"] = field(default="mobilenet_v2", metadata=_says("Network under the new head."))
    split_seed: int = field(
        default=0, metadata=_says("Salt of the 80/10/10 split; another one is another split of the same photos.", 0)
    )
    seed: int = field(default=0, metadata=_says("Seed of initial weights, photo order, augmentation and dropout.", 0))
    resize: int = field(
        default=256, metadata=_says("Short side before the centre crop when answering, in pixels.", 1, 4096)
    )
    crop: int = field(
        default=224,
        metadata=_says(
            "Side of the square that the model sees when answering, in pixels; cost grows with it².", 32, 4096
        ),
    )
    train_size: int = field(
        default=192,
        metadata=_says(
            "Side of the random crops in fine-tuning, in pixels; smaller is faster and looks less closely.", 32, 4096
        ),
    )
    epochs: int = field(default=16, metadata=_says("Most passes over the training photos in fine-tuning.", 1))
    batch_size: int = field(
        default=32,
        metadata=_says("Photos in a training step; larger is steadier and needs more memory and a higher rate.", 2),
    )
    optimizer: Literal["sgd", "adamw"] = field(default="sgd", metadata=_says("sgd is SGD with Nesterov momentum."))
    lr: float = field(
        default=0.01,
        metadata=_says("Peak learning rate of the head; about 0.01 for sgd and 0.0005 for adamw.", 1e-8, 10),
    )
    layer_decay: float = field(
        default=0.9,
        metadata=_says(
            "Each block farther from the head learns at this fraction of the next one's rate; 1 means equal rates.",
            1e-3,
            1,
        ),
    )
    momentum: float = field(default=0.9, metadata=_says("Nesterov momentum of sgd.", 0, 0.9999))
    weight_decay: float = field(
        default=1e-4, metadata=_says("Pull of weights towards 0; norms and biases are left free.", 0, 1)
    )
    warmup_epochs: float = field(
        default=0.5, metadata=_says("Linear rise to the peak rate before the cosine falls, in epochs.", 0)
    )
    label_smoothing: float = field(
        default=0.1,
        metadata=_says("Share of the target spread over all classes; guards against overconfidence.", 0, 0.9),
    )
    dropout: float = field(default=0.2, metadata=_says("Share of pooled features dropped in fine-tuning.", 0, 0.9))
    ema_decay: float = field(
        default=0.998,
        metadata=_says(
            "Weight of the past in the running average of the weights that is kept; 0 keeps the raw weights.",
            0,
            0.99999,
        ),
    )
    patience: int = field(
        default=6, metadata=_says("Epochs without a better validation result before fine-tuning stops.", 1)
    )
    min_scale: float = field(
        default=0.25, metadata=_says("Smallest share of a photo's area that a random crop may show.", 0.01, 1)
    )
    color_jitter: float = field(
        default=0.2, metadata=_says("Strength of random brightness, contrast and saturation; hue gets a quarter.", 0, 1)
    )
    trivial_augment: bool = field(
        default=True, metadata=_says("TrivialAugmentWide instead of colour jitter: stronger, against overfitting.")
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(
        default="auto",
        metadata=_says(
            "Arithmetic of fine-tuning; auto takes bf16 where the processor has it, then fp16 on CUDA, then fp32."
        ),
    )

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for setting in dataclasses.fields(self):
            _check(setting, hints[setting.name], getattr(self, setting.name))
        if self.crop > self.resize:
            raise RecipeInvalid("crop", self.crop, f"at most resize, which is {self.resize}")

    def record(self) -> dict[str, Scalar]:
        """Field → value, for JSON."""
        return dataclasses.asdict(self)


def _check(setting: "dataclasses.Field[Any]", kind: Any, value: Any) -> None:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise RecipeInvalid(setting.name, value, "one of " + ", ".join(choices))
        return
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise RecipeInvalid(
            setting.name, value, {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        )
    low, high = setting.metadata["low"], setting.metadata["high"]
    if not low <= value <= high:
        raise RecipeInvalid(setting.name, value, _range(low, high))


def _range(low: float, high: float) -> str:
    if high == math.inf:
        return f"at least {low:g}"
    return f"from {low:g} to {high:g}"


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; no field changes what is learned, beyond the arithmetic of the device."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = (
        None  # processes that read and augment photos; None is one a core, 0 reads in the trainer itself
    )
    checkpoint_seconds: float = 120.0  # work that a killed fine-tuning loses at most, against time spent on writing
