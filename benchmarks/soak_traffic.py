"""The kinds of traffic of a soak: each one call of a client that is right, impatient, mistaken, greedy or gone."""

import random
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from benchmarks.soak_material import RunContext, connected, differs, top
from benchmarks.tally import Outcome

_PATIENCE_S = 60.0  # an honest caller's; whoever waits longer has met a hang
_ABOUT_AN_ANSWER_S = 0.2  # how long it takes among the others
_OVER_THE_LIMIT = 21 * 10**6  # bytes; more than a server takes by default
_STREAMED = 12  # pictures of one stream


@dataclass
class Caller:
    """One client with a connection of its own."""

    target: str
    metrics_url: str
    material: RunContext
    chance: random.Random
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        self.channel = connected(self.target)
        self.stub = ImageClassifierStub(self.channel)
        self.inference = GRPCInferenceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)


@dataclass(frozen=True)
class Kind:
    """A kind of call, how often it is made beside the others, and how it may end."""

    name: str
    share: int
    call: Callable[[Caller], list[Outcome]]
    codes: frozenset[str]


def ended(call: Any, check: Callable[[Any], str] = lambda _: "") -> list[Outcome]:
    """Waits for the call's end."""
    try:
        return [Outcome("OK", check(call.result(2 * _PATIENCE_S)))]
    except grpc.FutureCancelledError:
        return [Outcome("CANCELLED")]
    except grpc.FutureTimeoutError:
        call.cancel()
        return [Outcome("HANGING")]
    except grpc.RpcError as error:
        return [Outcome(error.code().name)]


def _classify(caller: Caller, image: bytes, timeout_s: float = _PATIENCE_S) -> Any:
    return caller.stub.Classify.future(pb.ClassifyRequest(image=image), timeout=timeout_s)


def _right(caller: Caller, image: bytes) -> Callable[[pb.ClassifyResponse], str]:
    return lambda answer: differs(caller.material.answers[image], top(answer))


def classify(caller: Caller) -> list[Outcome]:
    return ended(_classify(caller, caller.material.photo), _right(caller, caller.material.photo))


def classify_large(caller: Caller) -> list[Outcome]:
    return ended(_classify(caller, caller.material.large), _right(caller, caller.material.large))


def classify_bad(caller: Caller) -> list[Outcome]:
    return ended(_classify(caller, caller.chance.choice(caller.material.bad)))


def classify_too_large(caller: Caller) -> list[Outcome]:
    return ended(_classify(caller, bytes(_OVER_THE_LIMIT)))


def cancel(caller: Caller) -> list[Outcome]:
    """At a random moment of the time that an answer takes."""
    call = _classify(caller, caller.material.photo)
    time.sleep(caller.chance.random() * _ABOUT_AN_ANSWER_S)
    call.cancel()
    return ended(call, _right(caller, caller.material.photo))


def hurry(caller: Caller) -> list[Outcome]:
    """A deadline about as long as an answer takes."""
    timeout_s = 0.001 + caller.chance.random() * _ABOUT_AN_ANSWER_S
    return ended(_classify(caller, caller.material.photo, timeout_s), _right(caller, caller.material.photo))


def vanish(caller: Caller) -> list[Outcome]:
    """A new connection that is gone before its answers come."""
    channel = connected(caller.target)
    stub = ImageClassifierStub(channel)
    calls = [stub.Classify.future(pb.ClassifyRequest(image=caller.material.large)) for _ in range(2)]
    time.sleep(caller.chance.random() * 0.05)
    channel.close()
    return [outcome for call in calls for outcome in ended(call)]


def stream(caller: Caller) -> list[Outcome]:
    """Every item is answered once; the bad one among them by an error of its own."""
    images = [caller.material.photo] * (_STREAMED - 1) + [caller.material.bad[1]]
    requests = [pb.ClassifyRequest(image=image, id=str(number)) for number, image in enumerate(images)]
    call = caller.stub.ClassifyStream(iter(requests), timeout=_PATIENCE_S)
    try:
        return _items(caller, {answer.id: answer for answer in call})
    except grpc.RpcError as error:
        return [Outcome(error.code().name)]


def _items(caller: Caller, answers: dict[str, pb.ClassifyStreamResponse]) -> list[Outcome]:
    bad = str(_STREAMED - 1)
    if answers.keys() != {str(number) for number in range(_STREAMED)}:
        return [Outcome("OK", f"answers to {sorted(answers)}")]
    if answers.pop(bad).error.code != grpc.StatusCode.INVALID_ARGUMENT.value[0]:
        return [Outcome("OK", "the bad picture was not refused")]
    right = _right(caller, caller.material.photo)
    return [Outcome("OK", right(answer.answer)) for answer in answers.values()]


def give_up_a_stream(caller: Caller) -> list[Outcome]:
    """After its first answer."""

    def endless() -> Iterator[pb.ClassifyRequest]:
        while True:
            yield pb.ClassifyRequest(image=caller.material.photo)

    call = caller.stub.ClassifyStream(endless(), timeout=_PATIENCE_S)
    first = next(call)
    call.cancel()
    return [Outcome("OK", _right(caller, caller.material.photo)(first.answer))]


def read_slowly(caller: Caller) -> list[Outcome]:
    """More answers than the server holds for a caller; it must wait, and others must not."""

    def requests() -> Iterator[pb.ClassifyRequest]:
        for number in range(2 * _STREAMED):
            yield pb.ClassifyRequest(image=caller.material.photo, id=str(number))

    right, outcomes = _right(caller, caller.material.photo), []
    try:
        for answer in caller.stub.ClassifyStream(requests(), timeout=_PATIENCE_S):
            outcomes.append(Outcome("OK", right(answer.answer)))
            time.sleep(caller.chance.random() * _ABOUT_AN_ANSWER_S)
    except grpc.RpcError as error:
        return [Outcome(error.code().name)]
    return outcomes if len(outcomes) == 2 * _STREAMED else [Outcome("OK", f"{len(outcomes)} answers")]


def explain(caller: Caller) -> list[Outcome]:
    call = caller.stub.Explain.future(pb.ExplainRequest(image=caller.material.photo), timeout=_PATIENCE_S)
    return ended(call, lambda answer: _right(caller, caller.material.photo)(answer.answer))


def infer_image(caller: Caller) -> list[Outcome]:
    photo = caller.material.photo
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[2, 1])
    return _infer(caller, tensor, [photo] * 2, struct.pack("<I", len(photo)) + photo)


def infer_pixels(caller: Caller) -> list[Outcome]:
    pixels, (_, *rest) = caller.material.pixels, caller.material.shape
    tensor = oip.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=[2, *rest])
    return _infer(caller, tensor, [pixels] * 2, pixels)


def infer_stream(caller: Caller) -> list[Outcome]:
    """Answers in the order of the requests; the bad one in the middle by a sentence."""
    pixels, (_, *rest) = caller.material.pixels, caller.material.shape
    tensor = oip.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=[1, *rest])
    requests = [_best(tensor, pixels), oip.ModelInferRequest(), _best(tensor, pixels)]
    try:
        found = list(caller.inference.ModelStreamInfer(iter(requests), timeout=_PATIENCE_S))
    except grpc.RpcError as error:
        return [Outcome(error.code().name)]
    if [bool(item.error_message) for item in found] != [False, True, False]:
        return [Outcome("OK", f"errors {[item.error_message for item in found]}")]
    good = [item.infer_response.raw_output_contents[0] for item in found[::2]]
    return [Outcome("OK", wrong_rows(caller, [pixels], raw)) for raw in good]


def _best(tensor: oip.ModelInferRequest.InferInputTensor, raw: bytes) -> oip.ModelInferRequest:
    """Asks for the best class of each row, as the classification extension names it."""
    best = oip.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
    best.parameters["classification"].int64_param = 1
    return oip.ModelInferRequest(inputs=[tensor], outputs=[best], raw_input_contents=[raw])


def _infer(
    caller: Caller, tensor: oip.ModelInferRequest.InferInputTensor, rows: list[bytes], raw: bytes
) -> list[Outcome]:
    call = caller.inference.ModelInfer.future(_best(tensor, raw * len(rows)), timeout=_PATIENCE_S)
    return ended(call, lambda answer: wrong_rows(caller, rows, answer.raw_output_contents[0]))


def wrong_rows(caller: Caller, rows: list[bytes], raw: bytes) -> str:
    found = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        value, _, label = raw[4 : 4 + length].decode().split(":")
        found.append((label, float(value)))
        raw = raw[4 + length :]
    if len(found) != len(rows):
        return f"{len(found)} rows and not {len(rows)}"
    return " ".join(differs(caller.material.answers[row], top) for row, top in zip(rows, found, strict=True)).strip()


def infer_nonsense(caller: Caller) -> list[Outcome]:
    tensor = oip.ModelInferRequest.InferInputTensor(name="pixels", datatype="FP32", shape=[1, 2, -3])
    request = oip.ModelInferRequest(inputs=[tensor], raw_input_contents=[b"x"])
    return ended(caller.inference.ModelInfer.future(request, timeout=_PATIENCE_S))


def look_around(caller: Caller) -> list[Outcome]:
    """What monitors and dashboards ask for."""
    with urllib.request.urlopen(caller.metrics_url, timeout=_PATIENCE_S) as page:
        page.read()
    calls = [
        caller.stub.ListModels.future(pb.ListModelsRequest(), timeout=_PATIENCE_S),
        caller.health.Check.future(health_pb2.HealthCheckRequest(), timeout=_PATIENCE_S),
        caller.inference.ModelStatistics.future(oip.ModelStatisticsRequest(), timeout=_PATIENCE_S),
        caller.inference.RepositoryIndex.future(oip.RepositoryIndexRequest(), timeout=_PATIENCE_S),
    ]
    return [outcome for call in calls for outcome in ended(call)]


def _kind(name: str, share: int, call: Callable[[Caller], list[Outcome]], *codes: str) -> Kind:
    return Kind(name, share, call, frozenset(codes))


KINDS = (
    _kind("classify", 40, classify, "OK"),
    _kind("cancel", 12, cancel, "OK", "CANCELLED"),
    _kind("hurry", 8, hurry, "OK", "DEADLINE_EXCEEDED"),
    _kind("bad", 8, classify_bad, "INVALID_ARGUMENT"),
    _kind("large", 2, classify_large, "OK"),
    _kind("too large", 1, classify_too_large, "RESOURCE_EXHAUSTED"),
    _kind("vanish", 2, vanish, "OK", "CANCELLED"),
    _kind("stream", 3, stream, "OK"),
    _kind("stream given up", 1, give_up_a_stream, "OK"),
    _kind("slow reader", 1, read_slowly, "OK"),
    _kind("explain", 3, explain, "OK"),
    _kind("infer image", 4, infer_image, "OK"),
    _kind("infer pixels", 6, infer_pixels, "OK"),
    _kind("infer stream", 3, infer_stream, "OK"),
    _kind("infer nonsense", 4, infer_nonsense, "INVALID_ARGUMENT"),
    _kind("look around", 2, look_around, "OK"),
)
