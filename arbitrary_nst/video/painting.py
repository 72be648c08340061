"""Frames through the network, in batches, in the style of their moment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.stylization.jobs import Style, code_for
from arbitrary_nst.stylization.options import PaintOptions
from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes
from arbitrary_nst.video.frames import Frame
from arbitrary_nst.video.keyframes import code_at


@dataclass(frozen=True)
class FrameStylizer:
    """The network with its styles.

    Args:
        styles: one, or several that `weights` blend, or that follow one another.
        times: of the styles, in seconds, ascending; none for one style or a blend.
    """

    stylizer: Stylizer
    styles: Sequence[Style]
    times: Sequence[float]
    weights: Sequence[float]
    options: PaintOptions

    @property
    def batch_size(self) -> int:
        """Number of frames that keeps the device busy: one on processors."""
        return 8 if self.stylizer.device.type == "cuda" else 1

    def __call__(self, frames: Sequence[Frame]) -> list[Float[np.ndarray, "H W 3"]]:
        """Frames of one size as the network paints them, 0 to 255."""
        pixels = [torch.from_numpy(frame.rgb).permute(2, 0, 1) for frame in frames]
        codes = torch.cat([self._code_for(frame, seen) for frame, seen in zip(frames, pixels, strict=True)])
        painted = self.stylizer(torch.stack(pixels).float().div_(255), codes, **vars(self.options))
        return [picture.permute(1, 2, 0).mul(255).contiguous().numpy() for picture in painted]

    def _code_for(self, frame: Frame, pixels: Tensor) -> Float[Tensor, "1 D"]:
        codes = [code_for(self.stylizer, style, pixels) for style in self.styles]
        if self.times:
            return code_at(float(frame.time), self.times, codes)
        return blend_codes(codes, self.weights) if self.weights else codes[0]
