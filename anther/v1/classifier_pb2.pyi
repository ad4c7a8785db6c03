from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClassifyRequest(_message.Message):
    __slots__ = ("image", "model", "version", "top_k", "id", "label")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    model: str
    version: int
    top_k: int
    id: str
    label: str
    def __init__(self, image: _Optional[bytes] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., top_k: _Optional[int] = ..., id: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("model", "version", "execution_provider", "predictions", "confident", "timings", "id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    execution_provider: str
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    confident: bool
    timings: Timings
    id: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., execution_provider: _Optional[str] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., confident: _Optional[bool] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., id: _Optional[str] = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("id", "answer", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    answer: ClassifyResponse
    error: ItemError
    def __init__(self, id: _Optional[str] = ..., answer: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata", "retry_after")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    retry_after: float
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry_after: _Optional[float] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("image", "model", "version", "top_k", "id", "label", "class_index", "class_label")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_INDEX_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    model: str
    version: int
    top_k: int
    id: str
    label: str
    class_index: int
    class_label: str
    def __init__(self, image: _Optional[bytes] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., top_k: _Optional[int] = ..., id: _Optional[str] = ..., label: _Optional[str] = ..., class_index: _Optional[int] = ..., class_label: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("answer", "explained", "evidence", "overlay_png")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_PNG_FIELD_NUMBER: _ClassVar[int]
    answer: ClassifyResponse
    explained: Prediction
    evidence: EvidenceMap
    overlay_png: bytes
    def __init__(self, answer: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., explained: _Optional[_Union[Prediction, _Mapping]] = ..., evidence: _Optional[_Union[EvidenceMap, _Mapping]] = ..., overlay_png: _Optional[bytes] = ...) -> None: ...

class EvidenceMap(_message.Message):
    __slots__ = ("height", "width", "values", "logit")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    values: _containers.RepeatedScalarFieldContainer[float]
    logit: float
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., logit: _Optional[float] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("label", "index", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    probability: float
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., probability: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue", "decode", "preprocess", "inference", "postprocess")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    PREPROCESS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    POSTPROCESS_FIELD_NUMBER: _ClassVar[int]
    queue: float
    decode: float
    preprocess: float
    inference: float
    postprocess: float
    def __init__(self, queue: _Optional[float] = ..., decode: _Optional[float] = ..., preprocess: _Optional[float] = ..., inference: _Optional[float] = ..., postprocess: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelDescription]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelDescription, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version", "label")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    label: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelDescription
    def __init__(self, model: _Optional[_Union[ModelDescription, _Mapping]] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("name", "version", "labels", "architecture", "precision", "execution_provider", "sha256", "threshold", "test_metrics", "manifest_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TEST_METRICS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    architecture: str
    precision: str
    execution_provider: str
    sha256: str
    threshold: float
    test_metrics: TestMetrics
    manifest_json: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., architecture: _Optional[str] = ..., precision: _Optional[str] = ..., execution_provider: _Optional[str] = ..., sha256: _Optional[str] = ..., threshold: _Optional[float] = ..., test_metrics: _Optional[_Union[TestMetrics, _Mapping]] = ..., manifest_json: _Optional[str] = ...) -> None: ...

class TestMetrics(_message.Message):
    __slots__ = ("photos", "top1", "top1_low", "top1_high")
    PHOTOS_FIELD_NUMBER: _ClassVar[int]
    TOP1_FIELD_NUMBER: _ClassVar[int]
    TOP1_LOW_FIELD_NUMBER: _ClassVar[int]
    TOP1_HIGH_FIELD_NUMBER: _ClassVar[int]
    photos: int
    top1: float
    top1_low: float
    top1_high: float
    def __init__(self, photos: _Optional[int] = ..., top1: _Optional[float] = ..., top1_low: _Optional[float] = ..., top1_high: _Optional[float] = ...) -> None: ...
