"""Styles over time: `monet.jpg@0 klimt.jpg@10` turns from one into the other in ten seconds.

Shapes: D numbers of a style code.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.errors import UsageError
from arbitrary_nst.stylization.stylizer import blend_codes

Key = tuple[str, float | None]
"""The name of a style and the second at which it is reached; None: it was given no time."""


def parse_key(text: str, exists: Callable[[str], bool]) -> Key:
    """`NAME@SECONDS` or `NAME`. A name that exists as it stands has no time, whatever signs are in it.

    Raises ValueError for a time that is negative or not finite.
    """
    name, at, time = text.rpartition("@")
    if not at or exists(text):
        return text, None
    try:
        seconds = float(time)
    except ValueError:
        return text, None
    if not 0 <= seconds < math.inf:
        raise UsageError(f"--style {text}: a time must be 0 or more seconds")
    return name, seconds


def check_times(keys: Sequence[Key]) -> None:
    """Raises ValueError where only some styles have a time, or two have the same."""
    times = [time for _, time in keys if time is not None]
    if times and len(times) < len(keys):
        name = next(name for name, time in keys if time is None)
        raise UsageError(f"--style {name}: the others have a time; give it one too, as in {name}@0")
    if len(set(times)) < len(times):
        twice = next(time for time in times if times.count(time) > 1)
        raise UsageError(f"--style: two styles at {twice:g} seconds; give each its own time")


def code_at(seconds: float, times: Sequence[float], codes: Sequence[Float[Tensor, "1 D"]]) -> Float[Tensor, "1 D"]:
    """The code at a moment: interpolated linearly between keys in the order of their times, constant outside."""
    later = bisect_right(times, seconds)
    if later in (0, len(times)):
        return codes[max(later - 1, 0)]
    begin, end = times[later - 1], times[later]
    share = (seconds - begin) / (end - begin)
    return blend_codes([codes[later - 1], codes[later]], [1 - share, share])
