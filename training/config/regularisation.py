"""What keeps a network from learning the photos by heart."""

from dataclasses import dataclass, field

from training.config.fields import says


@dataclass(frozen=True)
class Regularisation:
    dropout: float = field(default=0.2, metadata=says("Share of pooled features dropped in training.", 0, 0.9))
    weight_decay: float = field(
        default=1e-4, metadata=says("Pull of weights towards 0 (L2); norms and biases are left free.", 0, 1)
    )
    l1: float = field(
        default=0.0,
        metadata=says(
            "Penalty on the absolute size of the head's weights; with --weight-decay it is an elastic net.", 0, 1
        ),
    )
    label_smoothing: float = field(
        default=0.1,
        metadata=says("Share of the target spread over all classes; guards against overconfidence.", 0, 0.9),
    )
    ema_decay: float = field(
        default=0.998,
        metadata=says(
            "Weight of the past in the running average of the weights that is kept; 0 keeps the raw weights.",
            0,
            0.99999,
        ),
    )
