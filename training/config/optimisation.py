"""Settings of optimisation (optimizer, rates, batches, early stopping) and of regularisation."""

from dataclasses import dataclass, field
from typing import Literal

from training.config.fields import says


@dataclass(frozen=True)
class Optimisation:
    epochs: int = field(default=16, metadata=says("Most passes over the training photos.", 1))
    batch_size: int = field(
        default=32,
        metadata=says("Photos in a training step; larger is steadier and needs more memory and a higher rate.", 2),
    )
    accumulate: int = field(
        default=1,
        metadata=says("Batches whose gradients are added up before a step: a larger batch in less memory.", 1),
    )
    balance: Literal["none", "weights", "sampling"] = field(
        default="none",
        metadata=says(
            "For skewed sets: weights makes each photo of a rare class count more, sampling shows it more often."
        ),
    )
    optimizer: Literal["sgd", "adamw", "rmsprop"] = field(
        default="sgd", metadata=says("sgd is SGD with Nesterov momentum.")
    )
    lr: float = field(
        default=0.0,
        metadata=says(
            "Peak learning rate of the head; 0 takes 0.01 for sgd and 0.0005 for adamw and rmsprop, or a tenth of it "
            "where pretrained layers are tuned whose norms do not follow the batches.",
            0,
            10,
        ),
    )
    find_lr: bool = field(
        default=False,
        metadata=says("Measure the peak rate by a short rising sweep before training; then --lr is unused."),
    )
    layer_decay: float = field(
        default=0.9,
        metadata=says(
            "Each block farther from the head learns at this fraction of the next one's rate; 1 means equal rates.",
            1e-3,
            1,
        ),
    )
    momentum: float = field(default=0.9, metadata=says("Momentum of sgd (Nesterov) and rmsprop.", 0, 0.9999))
    schedule: Literal["cosine", "step", "one-cycle", "constant"] = field(
        default="cosine", metadata=says("How the rate goes on after the warm-up; one-cycle brings its own rise.")
    )
    warmup_epochs: float = field(default=0.5, metadata=says("Linear rise to the peak rate, in epochs.", 0))
    step_epochs: int = field(default=5, metadata=says("With --schedule step: epochs between two falls of the rate.", 1))
    step_factor: float = field(
        default=0.1, metadata=says("With --schedule step: what each fall multiplies the rate by.", 1e-4, 1)
    )
    clip_norm: float = field(
        default=0.0, metadata=says("Largest length of the gradient; longer ones are scaled down, 0 leaves them.", 0)
    )
    patience: int = field(
        default=6, metadata=says("Epochs without a better validation result before training stops.", 1)
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(
        default="auto",
        metadata=says(
            "Arithmetic of training; auto takes bf16 where the processor has it, then fp16 on CUDA, then fp32."
        ),
    )
    compile: bool = field(
        default=False,
        metadata=says("Compile the network with torch.compile: a minute at the start, then faster steps."),
    )


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
