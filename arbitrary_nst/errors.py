"""All exceptions of the package: one tree with one base.

    ArbitraryNSTError
    ├── UsageError (ValueError)                      a wrong option or argument: exit code 2
    ├── MissingPackageError (ImportError)            an optional package is not installed
    ├── OutputError (OSError)                        a result cannot be written
    ├── ImageError                                   an image or a video cannot be read
    ├── StyleFileError (ValueError)                  a style file cannot be used
    ├── ModelFileError (ValueError)                  a model file cannot be used
    │   └── ExportMismatch                           an exported file differs from its model
    ├── WeightsNotFoundError (RuntimeError)          weights are neither here nor downloadable
    ├── HubError (RuntimeError)                      the Hugging Face hub refuses an upload
    ├── CheckpointError (RuntimeError)               a file of a training run cannot be read or written
    ├── WorkerError (RuntimeError)                   a process that prepares pictures fails
    ├── DivergedError (FloatingPointError)           a computation is no longer finite
    │   ├── OptimizationDiverged
    │   └── TrainingDiverged
    └── TrainingInterrupted                          a signal stopped training

Each message is one line: the file or the option, what is wrong, what to do. A command prints it without a traceback and
exits with 1, or with 2 for a `UsageError`. Any other exception is a fault of the package and keeps its traceback.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class ArbitraryNSTError(Exception):
    """Base of all errors that this package raises on purpose."""


class UsageError(ArbitraryNSTError, ValueError):
    """An option or an argument is wrong, or contradicts another one or the files."""


class MissingPackageError(ArbitraryNSTError, ImportError):
    """An optional package is not installed. The message names the extra that has it."""


class OutputError(ArbitraryNSTError, OSError):
    """A result cannot be written where it should go."""


class ImageError(ArbitraryNSTError):
    """An image or a video cannot be read. The message is one line: the file, what is wrong, what to do."""


class StyleFileError(ArbitraryNSTError, ValueError):
    """A style file or a name of the gallery cannot be used. The message says which, why, and what to do."""


class ModelFileError(ArbitraryNSTError, ValueError):
    """A file is not a model of this package, or not one that this version knows."""


class ExportMismatch(ModelFileError):
    """An exported file does not compute what the model computes."""


class WeightsNotFoundError(ArbitraryNSTError, RuntimeError):
    """Weights are neither on this machine nor available over the network."""


class HubError(ArbitraryNSTError, RuntimeError):
    """The Hugging Face hub cannot be reached, or refuses an upload."""


class CheckpointError(ArbitraryNSTError, RuntimeError):
    """A file of a training run cannot be read or written."""


class WorkerError(ArbitraryNSTError, RuntimeError):
    """A process that prepares pictures has ended, or cannot hand over what it has prepared."""


class DivergedError(ArbitraryNSTError, FloatingPointError):
    """A computation is no longer finite."""


class OptimizationDiverged(DivergedError):
    """The loss of an optimization is not finite."""


class TrainingDiverged(DivergedError):
    """The gradients of many training steps in a row are not usable."""


class TrainingInterrupted(ArbitraryNSTError):
    """A signal stopped training, after a checkpoint.

    Args:
        number: the signal's number.
        message: at which step, and how to resume.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean X?` where one of the known words is close, else nothing."""
    close = get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def requires(purpose: str, extra: str, remedy: str = "") -> Iterator[None]:
    """Report a package that an import in the block misses, with the extra that installs it.

    Args:
        purpose: the part of the package that needs it, such as "serve" or "--smooth".
        extra: name of the extra in pyproject.toml.
        remedy: appended to the message, such as ", or give --smooth 0".

    Raises MissingPackageError.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package == "arbitrary_nst":
            raise
        raise MissingPackageError(
            f"{purpose} needs the package {package}: pip install 'arbitrary_nst[{extra}]'{remedy}", name=error.name
        ) from error


@contextmanager
def option(name: str) -> Iterator[None]:
    """Turn a ValueError about the value of a command-line option into a UsageError that names the option."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from error
