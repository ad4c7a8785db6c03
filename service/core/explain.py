"""Where in a picture the evidence for a class lies: the model's own map of it, and a drawing."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Limits
from service.core.classifier import Answer, Classifier, PictureWork, Prediction, Request
from service.core.overlay import overlay_png
from service.engines.engine import Outputs
from service.errors import InvalidArgument, NoEvidence
from service.scheduling.scheduler import RunTiming
from service.versions.loader import LiveModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Answer):
    """An answer, and what speaks for one of its classes.

    `evidence` float32 [h, w]: its mean plus a bias of the class, which is the same for every picture, is `logit`.
    """

    explained: Prediction
    evidence: npt.NDArray[np.float32]
    logit: float
    overlay_png: bytes


async def explain(classifier: Classifier, request: Request, wanted: int | str | None = None) -> Explanation:
    """Explain the class with that index or label; None is the most probable one.

    Raises `NoEvidence`, `InvalidArgument`, and what `Classifier.classify` raises.
    """
    model = classifier.find(request.target)
    if not model.bundle.manifest.model.evidence:
        raise NoEvidence(model.name, model.version)
    if request.top_k < 0:
        raise InvalidArgument("top_k", request.top_k, "0 (for the default) or more")
    index = None if wanted is None else _index(model.bundle.manifest.labels, wanted)
    work = _ExplainWork(model, dataclasses.replace(request, evidence=True), classifier.limits, index)
    (explanation,) = await classifier.run_all([work])
    classifier.hand_on(request, explanation)
    return explanation


class _ExplainWork(PictureWork):
    """Draws on the scheduler's thread, too: the event loop has other callers to see to."""

    __slots__ = ("_index",)

    def __init__(self, model: LiveModel, request: Request, limits: Limits, index: int | None) -> None:
        super().__init__(model, request, limits)
        self._index = index

    def finish(self, outputs: Outputs, spent: RunTiming) -> Explanation:
        answer = super().finish(outputs, spent)
        index = answer.predictions[0].index if self._index is None else self._index
        maps, probability = outputs.evidence, float(outputs.probabilities[0, index])
        assert maps is not None
        assert answer.pixels is not None
        # Full strength is the most that any class has, so that drawings of two classes of a picture can be compared.
        overlay = overlay_png(answer.pixels, maps[0, index], float(maps.max()))
        return Explanation(
            answer.model,
            answer.predictions,
            answer.confident,
            answer.timings,
            outputs,
            spent,
            answer.pixels,
            explained=Prediction(self.model.bundle.manifest.labels[index], index, probability),
            evidence=maps[0, index],
            logit=float(outputs.logits[0, index]),
            overlay_png=overlay,
        )


def _index(labels: tuple[str, ...], wanted: int | str) -> int:
    if isinstance(wanted, str):
        if wanted not in labels:
            raise InvalidArgument("class_label", wanted, f"one of {', '.join(labels)}")
        return labels.index(wanted)
    if not 0 <= wanted < len(labels):
        raise InvalidArgument("class_index", wanted, f"0 to {len(labels) - 1}")
    return wanted
