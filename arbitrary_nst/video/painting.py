"""Frames through the network, in batches, in the style of their moment."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst.batch import Photo, StylizeConfig, choose_styles, code_for, prepared_style
from arbitrary_nst.stylizer import Stylizer, blend_codes
from arbitrary_nst.video.footage import Frame
from arbitrary_nst.video.schedule import check_times, code_at


class Painter:
    """The network with its styles, each encoded once.

    Args:
        keys: styles with their times, in the order of these; or styles without.
        config: options of the stylize command, which mean the same here.

    Raises ValueError where keys or options contradict each other or the model, ImageError or StyleFileError where a
    style cannot be read.
    """

    def __init__(self, keys: Sequence[tuple[str, float | None]], config: StylizeConfig) -> None:
        check_times(keys)
        self._times = [time for _, time in keys if time is not None]
        chosen: dict[str, Path | None] = {}
        names = []
        for name, path in ((name, (Path(name),)) for name, _ in keys) if self._times else (("", config.style),):
            found = choose_styles(StylizeConfig(**{**vars(config), "style": path}))
            if self._times and len(found) != 1:
                raise ValueError(f"--style {name}: stands for {len(found)} styles; a time is for one")
            chosen |= found
            names += list(found)
        if len(names) > 1 and not self._times and not config.style_weights:
            raise ValueError(
                f"--style: {len(names)} styles for one video; give --style-weights to blend them, or times, as in "
                f"{names[0]}@0 {names[1]}@10"
            )
        if self._times and config.style_weights:
            raise ValueError("--style-weights: blends styles, and here they follow one another by their times")
        self._config, self._weights = config, config.style_weights or None
        if self._weights is not None:
            blend_codes([torch.zeros(1, 1)] * len(names), self._weights)  # refuse bad weights before work
        self._stylizer = Stylizer.from_pretrained(config.model, config.device, config.precision)
        self._styles = [prepared_style(self._stylizer, name, chosen[name], config) for name in names]

    @property
    def batch_size(self) -> int:
        """What keeps the device busy: processors are with one frame."""
        return 8 if self._stylizer.device.type == "cuda" else 1

    def __call__(self, frames: Sequence[Frame]) -> list[Float[np.ndarray, "H W 3"]]:
        """Frames of one size as the network paints them, 0 to 255."""
        pixels = [torch.from_numpy(frame.rgb).permute(2, 0, 1) for frame in frames]
        codes = torch.cat([self._code_for(frame, seen) for frame, seen in zip(frames, pixels, strict=True)])
        painted = self._stylizer(torch.stack(pixels).float().div_(255), codes, **self._config.paint_options())
        return [picture.permute(1, 2, 0).mul(255).contiguous().numpy() for picture in painted]

    def _code_for(self, frame: Frame, pixels: Tensor) -> Float[Tensor, "1 D"]:
        photo = Photo(Path(frame.name), pixels, None, None)
        codes = [code_for(self._stylizer, style, photo, self._config) for style in self._styles]
        if self._times:
            return code_at(float(frame.time), self._times, codes)
        return codes[0] if self._weights is None else blend_codes(codes, self._weights)
