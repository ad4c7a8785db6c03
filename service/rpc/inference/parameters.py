"""What a request's parameters ask for, and how the protocol writes versions. Other parameters are the caller's own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from anther.open_inference import open_inference_pb2 as pb
from service.core.requests import LONGEST_ID, LONGEST_NAME
from service.errors import InvalidArgument

Parameters = Mapping[str, pb.InferParameter]
Value = bool | int | float | str | None

_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_MOST = 64  # parameters of a request
_SHARED_MEMORY = "shared_memory"  # how the names begin that point a tensor to memory outside the message


@dataclass(frozen=True, slots=True)
class Options:
    """`label` '' and `timeout_s` None where the request says nothing."""

    label: str = ""
    timeout_s: float | None = None


_NONE = Options()


def options_of(parameters: Parameters) -> Options:
    """Raises `InvalidArgument` for what is not understood or cannot be done."""
    if not parameters:
        return _NONE
    _check_sizes(parameters)
    if "top_k" in parameters:
        expected = "no such parameter; give an output the parameter 'classification' for its highest values"
        raise InvalidArgument("parameters[top_k]", value_of(parameters, "top_k"), expected)
    count_of(parameters, "priority", least=0)  # every request has the same; a number that means nothing is a mistake
    microseconds = count_of(parameters, "timeout", least=0)
    return Options(_label(parameters), microseconds / 1e6 if microseconds else None)


def _check_sizes(parameters: Parameters) -> None:
    """The answer repeats them."""
    if len(parameters) > _MOST:
        raise InvalidArgument("parameters", f"{len(parameters):,} of them", f"at most {_MOST}")
    for name in parameters:
        if len(name) > LONGEST_NAME:
            raise InvalidArgument("parameters", name, f"names of at most {LONGEST_NAME} characters")
        value = value_of(parameters, name)
        if isinstance(value, str) and len(value) > LONGEST_ID:
            raise InvalidArgument(f"parameters[{name}]", value, f"at most {LONGEST_ID:,} characters")


def version_of(text: str) -> int:
    """0, whichever serves, for ''. Raises `InvalidArgument`."""
    if not text:
        return 0
    if not _VERSION.fullmatch(text):
        raise InvalidArgument("model_version", text, "a version's number such as '1', or '' for the one that serves")
    return int(text)


def count_of(parameters: Parameters, name: str, least: int) -> int:
    """A whole number of `least` or more; 0 where the parameter is not there. Raises `InvalidArgument`."""
    if name not in parameters:
        return 0
    value = value_of(parameters, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgument(f"parameters[{name}]", value, f"a whole number of {least} or more")
    return value


def refuse_shared_memory(parameters: Parameters, tensor: str) -> None:
    """Raises `InvalidArgument` where a tensor is said to be somewhere else."""
    for name in parameters:
        if name.startswith(_SHARED_MEMORY):
            expected = "the tensor in the message itself: this server reads and writes no shared memory"
            raise InvalidArgument(f"{tensor}.parameters", name, expected)


def value_of(parameters: Parameters, name: str) -> Value:
    """None for a parameter without a value."""
    choice = parameters[name].WhichOneof("parameter_choice")
    value: Value = None if choice is None else getattr(parameters[name], choice)
    return value


def _label(parameters: Parameters) -> str:
    if "label" not in parameters:
        return ""
    value = value_of(parameters, "label")
    if not isinstance(value, str):
        raise InvalidArgument("parameters[label]", value, "a string: 'stable' or 'canary'")
    return value
