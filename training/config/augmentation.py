"""Settings of augmentation; 0 turns a step off."""

from dataclasses import dataclass, field

from training.config.fields import says


@dataclass(frozen=True)
class Augmentation:
    min_scale: float = field(
        default=0.25,
        metadata=says(
            "Smallest share of a photo's area that a random crop may show; 1 crops no more than answering does.",
            0.01,
            1,
        ),
    )
    horizontal_flip: float = field(default=0.5, metadata=says("Chance of mirroring left and right.", 0, 1))
    vertical_flip: float = field(default=0.0, metadata=says("Chance of mirroring top and bottom.", 0, 1))
    rotation: float = field(default=0.0, metadata=says("Largest random turn to either side, in degrees.", 0, 180))
    translation: float = field(
        default=0.0, metadata=says("Largest random shift in each direction, as a share of the side.", 0, 1)
    )
    scale: float = field(
        default=0.0, metadata=says("Largest random enlarging or shrinking of the whole photo, as a share.", 0, 0.9)
    )
    color_jitter: float = field(
        default=0.2, metadata=says("Strength of random brightness, contrast and saturation; hue gets a quarter.", 0, 1)
    )
    noise: float = field(
        default=0.0, metadata=says("Largest deviation of random Gaussian noise, for values from 0 to 1.", 0, 1)
    )
    blur: float = field(default=0.0, metadata=says("Largest deviation of a random Gaussian blur, in pixels.", 0, 10))
    trivial_augment: bool = field(
        default=True, metadata=says("TrivialAugmentWide instead of colour jitter: stronger, against overfitting.")
    )
    erasing: float = field(default=0.0, metadata=says("Chance that a random rectangle is blanked out.", 0, 1))
    mixup: float = field(
        default=0.2,
        metadata=says("Alpha of mixup, which blends two photos and their labels; 0.2 is mild, 1 is strong.", 0, 10),
    )
    cutmix: float = field(
        default=0.0,
        metadata=says(
            "Alpha of CutMix, which pastes a part of one photo into another; with mixup each gets half.", 0, 10
        ),
    )
