"""The error family: every mistake of a user ends as one sentence that says what, which value, and what to do."""

from __future__ import annotations


class ThroughMaskError(ValueError):
    """A user's mistake: `problem` says what is wrong, `seen` the value that was met, `fix` what to do about it.

    The command line prints it as one line and exits with status 2; anything that is not a `ThroughMaskError` is our bug
    and keeps its traceback.
    """

    def __init__(self, problem: str, *, seen: object = None, fix: str = "") -> None:
        self.problem, self.seen, self.fix = problem, seen, fix
        parts = [problem if seen is None else f"{problem} (seen: {_short(seen)})", fix]
        super().__init__("; ".join(" ".join(part.split()) for part in parts if part))

    def __reduce__(self) -> tuple[object, ...]:  # keyword arguments survive a trip through a worker process
        return (_rebuild, (type(self), self.problem, self.seen if self.seen is None else _short(self.seen), self.fix))


class InvalidValueError(ThroughMaskError):
    """A Video, Scene, MaskTrajectory or Sample that contradicts itself, or an argument outside its range."""


class MediaError(ThroughMaskError):
    """An image or video that cannot be read or written."""


class SampleError(ThroughMaskError):
    """A folder that is not a Sample, or one whose parts disagree."""


class FormatError(ThroughMaskError):
    """A file of a neighbour's format (DAVIS, COCO-RLE, ...) that breaks that format's rules."""


class OutputError(ThroughMaskError):
    """An output that already exists, or a place that cannot be written to."""


class DeviceError(ThroughMaskError):
    """A device that this machine does not have, or that has too little memory."""


class MissingPackageError(ThroughMaskError):
    """An optional package is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs a package that is not installed", fix=f"pip install 'through-the-mask[{extra}]'"
        )
        self.feature, self.extra = feature, extra

    def __reduce__(self) -> tuple[object, ...]:
        return (MissingPackageError, (self.feature, self.extra))


class ThroughMaskWarning(UserWarning):
    """Something was done that the user should know about: frames resampled, overlaps resolved, a prompt cut."""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _rebuild(kind: type[ThroughMaskError], problem: str, seen: object, fix: str) -> ThroughMaskError:
    return kind(problem, seen=seen, fix=fix)
