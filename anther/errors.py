"""The root of every error that Anther raises on purpose, and the stable word for each kind."""

import re


class AntherError(Exception):
    """`str` of it is a sentence for people; `facts` are its parts for programs, as text."""

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = {name: str(value) for name, value in facts.items()}


def reason_of(kind: type[AntherError]) -> str:
    """`ImageTooManyBytes` becomes IMAGE_TOO_MANY_BYTES: stable, a label of metrics, and a legal ErrorInfo reason."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).upper()
