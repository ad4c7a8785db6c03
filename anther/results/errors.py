"""Errors of the file that `anther classify --output` writes. All but the last two come before any photo is sent.

AntherError
└── OutputRefused
    ├── OutputForeign            the file is something else
    ├── OutputBusy               another run writes it
    ├── OutputOfAnotherModel     its answers are not those that would be added
    ├── OutputNotWritable        the disk does not take it
    └── ModelLeft                the model that it was begun with serves no more
"""

from pathlib import Path

from anther.errors import AntherError


class OutputRefused(AntherError):
    """Root of what is wrong with an output; what it holds is left as it is."""


class OutputForeign(OutputRefused):
    def __init__(self, path: Path, where: str, reason: str) -> None:
        super().__init__(
            f"{path} was not written by `anther classify` ({where}: {reason}); name another --output",
            path=path,
            where=where,
            reason=reason,
        )


class OutputBusy(OutputRefused):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is being written by another run; wait for it or name another --output", path=path)


class OutputOfAnotherModel(OutputRefused):
    def __init__(self, path: Path, recorded: str, serving: str) -> None:
        super().__init__(
            f"{path} holds answers of {recorded}, and {serving} would answer now; name another --output, ask for the "
            "same one with --model and --version, or go on all the same with --mix-models",
            path=path,
            recorded=recorded,
            serving=serving,
        )


class OutputNotWritable(OutputRefused):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be written ({reason}); put that right and run the same command again",
            path=path,
            reason=reason,
        )


class ModelLeft(OutputRefused):
    def __init__(self, path: Path, model: str, reason: str) -> None:
        super().__init__(
            f"{path} was begun with {model}, which serves no more ({reason}); name another --output, or go on with the "
            "version in service with --mix-models",
            path=path,
            model=model,
            reason=reason,
        )
