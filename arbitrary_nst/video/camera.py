"""A camera as a source, and a window for what becomes of it."""

import re
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from arbitrary_nst.runtime.files import ImageError
from arbitrary_nst.video.frames import Frame, VideoInfo
from arbitrary_nst.video.motion import opencv

TICK = Fraction(1, 1000)


class Camera:
    """Frames of a camera, with the times of the requests; it has no end of its own.

    Raises ImageError where there is no such camera.
    """

    def __init__(self, number: int) -> None:
        self.path, self.damaged = Path(f"camera {number}"), 0
        cv2 = opencv()
        self._capture = cv2.VideoCapture(number)
        seen, picture = self._capture.read() if self._capture.isOpened() else (False, None)
        if picture is None or not seen:
            self._capture.release()
            raise ImageError(f"--camera {number}: there is no such camera, or another program uses it")
        rate = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or 25).limit_denominator(1001)
        self.info = VideoInfo(picture.shape[:2], rate, TICK)

    def frames(self) -> Iterator[Frame]:
        begin, usual, last = time.monotonic(), 1 / self.info.rate, -TICK
        try:
            while True:
                seen, picture = self._capture.read()
                if not seen:
                    return
                last = max(round(Fraction(time.monotonic() - begin) / TICK) * TICK, last + TICK)
                yield Frame(np.ascontiguousarray(picture[..., ::-1]), last, usual)
        finally:
            self._capture.release()


def can_show() -> bool:
    """Return True if this OpenCV has windows; the headless one has none."""
    return not re.search(r"GUI:\s+NONE", opencv().getBuildInformation())


def show(frames: Iterable[Frame], title: str = "arbitrary_nst") -> None:
    """Frames in a window, until q or Escape is pressed in it."""
    cv2 = opencv()
    for frame in frames:
        cv2.imshow(title, np.ascontiguousarray(frame.rgb[..., ::-1]))
        if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
            return
