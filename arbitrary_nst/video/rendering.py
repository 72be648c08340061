"""Rendering of frames: the stages, all of them at work at the same time."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from jaxtyping import Float

from arbitrary_nst.video.frames import Frame
from arbitrary_nst.video.motion import Motion, estimate_motion
from arbitrary_nst.video.pipeline import StageTimer, batched, prefetch
from arbitrary_nst.video.progress import PreviousFrame
from arbitrary_nst.video.report import measure
from arbitrary_nst.video.smoothing import temporal_blend

StylizeFrames = Callable[[Sequence[Frame]], list[Float[np.ndarray, "H W 3"]]]
"""Frames of one size to their paintings, 0 to 255."""

Moved = tuple[Frame, Motion | None]
Painted = tuple[Frame, Motion | None, Float[np.ndarray, "H W 3"]]


@dataclass(frozen=True)
class Rendered:
    """A result, and what the next frame needs of it."""

    frame: Frame
    previous: PreviousFrame
    errors: tuple[float, ...]
    """Of the report: seconds, and warping errors as painted and as smoothed; nothing for the first frame."""


@dataclass(frozen=True)
class Renderer:
    """Options of rendering.

    Args:
        smooth: see `smoothing.temporal_blend`; 0: each frame for itself.
        batch_size: frames that are painted together.
        report: measure warping errors.
        depth: finished items that may wait between two stages.
    """

    stylize: StylizeFrames
    smooth: float
    batch_size: int
    report: bool
    timer: StageTimer
    depth: int = 2

    def __call__(
        self, frames: Iterable[Frame], previous: PreviousFrame | None = None
    ) -> Generator[Rendered, None, None]:
        """The results; close the iterator to end the threads.

        Args:
            previous: the frame before the first one, where the work goes on.
        """
        with ExitStack() as stack:

            def stage(items: Iterator, depth: int = self.depth) -> Iterator:
                return stack.enter_context(closing(prefetch(items, depth)))

            read = stage(self.timer.watched("read", frames), max(self.depth, self.batch_size))
            moved = stage(self._moved(read, previous), max(self.depth, self.batch_size))
            painted = stage(self._painted(moved))
            yield from stage(self._rendered(painted, previous))

    def _moved(self, frames: Iterable[Frame], previous: PreviousFrame | None) -> Iterator[Moved]:
        last = None if previous is None else previous.content
        for frame in frames:
            motion = None
            if self.smooth and last is not None and last.shape == frame.rgb.shape:
                with self.timer("motion"):
                    motion = estimate_motion(last, frame.rgb)
            last = frame.rgb
            yield frame, motion

    def _painted(self, moved: Iterable[Moved]) -> Iterator[Painted]:
        for batch in batched(moved, self.batch_size):
            for _, alike in groupby(batch, lambda item: item[0].rgb.shape):
                items = list(alike)
                with self.timer("paint"):
                    pictures = self.stylize([frame for frame, _ in items])
                for (frame, motion), picture in zip(items, pictures, strict=True):
                    yield frame, motion, picture

    def _rendered(self, items: Iterable[Painted], previous: PreviousFrame | None) -> Iterator[Rendered]:
        for frame, motion, painted in items:
            result, errors = painted, ()
            if previous is not None and motion is not None:
                with self.timer("smooth"):
                    result = temporal_blend(painted, previous.result, motion, self.smooth)
            if self.report and previous is not None and previous.content.shape == frame.rgb.shape:
                with self.timer("report"):
                    errors = (float(frame.time), *measure(previous, frame.rgb, painted, result))
            previous = PreviousFrame(frame.rgb, painted, result)
            pixels = np.rint(result).astype(np.uint8)
            yield Rendered(replace(frame, rgb=pixels), previous, errors)
