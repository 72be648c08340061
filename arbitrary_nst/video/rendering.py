"""From frames to painted, smoothed frames: the stages, all of them at work at the same time."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from jaxtyping import Float

from arbitrary_nst.video.checkpoint import Before
from arbitrary_nst.video.footage import Frame
from arbitrary_nst.video.motion import Motion, estimate_motion
from arbitrary_nst.video.pipeline import Clock, ahead, batched
from arbitrary_nst.video.report import measure
from arbitrary_nst.video.smoothing import steadied

Paint = Callable[[Sequence[Frame]], list[Float[np.ndarray, "H W 3"]]]
"""Frames of one size to their paintings, 0 to 255."""

Moved = tuple[Frame, Motion | None]
Painted = tuple[Frame, Motion | None, Float[np.ndarray, "H W 3"]]


@dataclass(frozen=True)
class Rendered:
    """A result, and what the next frame needs of it."""

    frame: Frame
    before: Before
    errors: tuple[float, ...]
    """Of the report: seconds, and warping errors as painted and as smoothed; nothing for the first frame."""


@dataclass(frozen=True)
class Renderer:
    """How frames are rendered.

    Args:
        smooth: see `smoothing.steadied`; 0: each frame for itself.
        batch_size: frames that are painted together.
        report: measure warping errors.
        depth: finished items that may wait between two stages.
    """

    paint: Paint
    smooth: float
    batch_size: int
    report: bool
    clock: Clock
    depth: int = 2

    def __call__(self, frames: Iterable[Frame], before: Before | None = None) -> Generator[Rendered, None, None]:
        """The results; close the iterator to end the threads.

        Args:
            before: what came before the first frame, where the work goes on.
        """
        with ExitStack() as stack:

            def stage(items: Iterator, depth: int = self.depth) -> Iterator:
                return stack.enter_context(closing(ahead(items, depth)))

            read = stage(self.clock.watched("read", frames), max(self.depth, self.batch_size))
            moved = stage(self._moved(read, before), max(self.depth, self.batch_size))
            painted = stage(self._painted(moved))
            yield from stage(self._rendered(painted, before))

    def _moved(self, frames: Iterable[Frame], before: Before | None) -> Iterator[Moved]:
        last = None if before is None else before.content
        for frame in frames:
            motion = None
            if self.smooth and last is not None and last.shape == frame.rgb.shape:
                with self.clock("motion"):
                    motion = estimate_motion(last, frame.rgb)
            last = frame.rgb
            yield frame, motion

    def _painted(self, moved: Iterable[Moved]) -> Iterator[Painted]:
        for batch in batched(moved, self.batch_size):
            for _, alike in groupby(batch, lambda item: item[0].rgb.shape):
                items = list(alike)
                with self.clock("paint"):
                    pictures = self.paint([frame for frame, _ in items])
                for (frame, motion), picture in zip(items, pictures, strict=True):
                    yield frame, motion, picture

    def _rendered(self, items: Iterable[Painted], before: Before | None) -> Iterator[Rendered]:
        for frame, motion, painted in items:
            result, errors = painted, ()
            if before is not None and motion is not None:
                with self.clock("smooth"):
                    result = steadied(painted, before.result, motion, self.smooth)
            if self.report and before is not None and before.content.shape == frame.rgb.shape:
                with self.clock("report"):
                    errors = (float(frame.time), *measure(before, frame.rgb, painted, result))
            before = Before(frame.rgb, painted, result)
            pixels = np.rint(result).astype(np.uint8)
            yield Rendered(replace(frame, rgb=pixels), before, errors)
