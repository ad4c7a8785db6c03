"""Settings of transfer learning: strategy, network, sizes and seeds."""

from dataclasses import dataclass, field
from typing import Literal

from training.config.fields import says

Strategy = Literal["auto", "head", "truncate", "finetune", "scratch"]
Backbone = Literal[
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "convnext_tiny",
    "vgg16",
    "alexnet",
    "small_cnn",
    "mlp",
]


@dataclass(frozen=True)
class Transfer:
    strategy: Strategy = field(
        default="finetune",
        metadata=says(
            "head: train only a new last layer (a minute). truncate: keep the first blocks, with a new head on them. "
            "finetune: train everything from pretrained weights (better, and slower). scratch: from random weights. "
            "auto: choose by the number of photos and how like the source data they are measured to be.",
        ),
    )
    backbone: Backbone = field(
        default="mobilenet_v2",
        metadata=says("Network under the new head; small_cnn and mlp are baselines that know no pretrained weights."),
    )
    width: float = field(
        default=1.0,
        metadata=says("Multiplier of mobilenet_v2's channels; other than 1 needs --weights none.", 0.1, 2),
    )
    keep_blocks: int = field(
        default=0,
        metadata=says("Blocks that truncate keeps; 0 takes the depth whose features a linear probe likes best.", 0),
    )
    tuned_blocks: int = field(
        default=0, metadata=says("Last blocks that finetune trains; 0 trains all, fewer keep more of the source.", 0)
    )
    head_features: Literal["cached", "augmented"] = field(
        default="cached",
        metadata=says(
            "Features a frozen network gives the head: cached are computed once from plain photos (a minute); "
            "augmented anew from random views in every epoch (far slower)."
        ),
    )
    batch_norm: Literal["auto", "frozen", "train"] = field(
        default="auto",
        metadata=says(
            "Statistics of batch norms: frozen keeps those of the pretrained weights, train follows the batches; auto "
            "freezes them for small data."
        ),
    )
    head_init: Literal["normal", "uniform", "orthogonal", "kaiming", "xavier", "zeros"] = field(
        default="kaiming",
        metadata=says(
            "How new layers start before any training; zeros is refused, since hidden units would stay equal."
        ),
    )
    split_seed: int = field(
        default=0, metadata=says("Salt of the 80/10/10 split; another one is another split of the same photos.", 0)
    )
    seed: int = field(default=0, metadata=says("Seed of initial weights, photo order, augmentation and dropout.", 0))
    resize: int = field(
        default=232, metadata=says("Short side before the centre crop when answering, in pixels.", 1, 4096)
    )
    crop: int = field(
        default=224,
        metadata=says(
            "Side of the square that the model sees when answering, in pixels; cost grows with it².", 32, 4096
        ),
    )
    train_size: int = field(
        default=224,
        metadata=says(
            "Side of the random crops in training, in pixels; smaller is faster and shows less detail.", 32, 4096
        ),
    )
    stored_size: int = field(
        default=0,
        metadata=says(
            "Short side at which training photos are kept on disk ready decoded, for fast epochs; 0 decodes them each "
            "time. train_size / √min_scale, which is 448, loses nothing that a crop could show; smaller ones blur.",
            0,
            4096,
        ),
    )
