"""Suspicious photos, for a person to judge. Each list begins with the strongest case."""

from dataclasses import dataclass

from training.dataset.split import Part


@dataclass(frozen=True)
class InspectedPhoto:
    """A photo, its label, and the part of the split that it belongs to."""

    path: str
    label: str
    part: Part


@dataclass(frozen=True)
class LabelSuspect:
    """Its label is doubtful: a model that never saw it prefers another one."""

    photo: InspectedPhoto
    suggested: str
    probability: float  # of its label
    probability_suggested: float


@dataclass(frozen=True)
class Copy:
    """Nearly the same photo twice: under two labels one is wrong, and across parts the measurement is too good."""

    first: InspectedPhoto
    second: InspectedPhoto
    correlation: float  # of the two thumbnails
    cosine: float  # of their features

    @property
    def labels_differ(self) -> bool:
        return self.first.label != self.second.label

    @property
    def parts_differ(self) -> bool:
        return self.first.part != self.second.part


@dataclass(frozen=True)
class Outlier:
    """Unlike all other photos; `score` in interquartile ranges beyond the third quartile of distances."""

    photo: InspectedPhoto
    score: float


@dataclass(frozen=True)
class Suspects:
    of: str  # the data or the run
    photos: int  # inspected ones
    labels: tuple[LabelSuspect, ...]
    copies: tuple[Copy, ...]
    outliers: tuple[Outlier, ...]
