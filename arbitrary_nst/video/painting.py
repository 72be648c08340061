"""Frames through the network, in batches, in the style of their moment."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.stylization.jobs import Style, code_for
from arbitrary_nst.stylization.options import PaintOptions
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes
from arbitrary_nst.video.frames import Frame
from arbitrary_nst.video.keyframes import code_at


class FrameStylizer:
    """The network with its styles.

    Args:
        styles: one, or several that `weights` blend, or that follow one another.
        times: of the styles, in seconds, ascending; none for one style or a blend.
    """

    def __init__(
        self,
        stylizer: Stylizer,
        styles: Sequence[Style],
        times: Sequence[float],
        weights: Sequence[float],
        options: PaintOptions,
    ) -> None:
        self._stylizer, self._styles, self._options = stylizer, styles, options
        self._times, self._weights = times, weights

    @property
    def batch_size(self) -> int:
        """Number of frames that keeps the device busy: one on processors."""
        return 8 if self._stylizer.device.type == "cuda" else 1

    def __call__(self, frames: Sequence[Frame]) -> list[Float[np.ndarray, "H W 3"]]:
        """Frames of one size as the network paints them, 0 to 255."""
        pixels = [torch.from_numpy(frame.rgb).permute(2, 0, 1) for frame in frames]
        codes = torch.cat([self._code_for(frame, seen) for frame, seen in zip(frames, pixels, strict=True)])
        painted = self._stylizer(torch.stack(pixels).float().div_(255), codes, **vars(self._options))
        return [picture.permute(1, 2, 0).mul(255).contiguous().numpy() for picture in painted]

    def _code_for(self, frame: Frame, pixels: Tensor) -> Float[Tensor, "1 D"]:
        codes = [code_for(self._stylizer, style, pixels) for style in self._styles]
        if self._times:
            return code_at(float(frame.time), self._times, codes)
        return blend_codes(codes, self._weights) if self._weights else codes[0]
