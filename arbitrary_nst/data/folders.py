"""Folders of pictures, decoded once and kept in memory."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from arbitrary_nst.image import load_pixels
from arbitrary_nst.paths import ImageError

logger = logging.getLogger(__name__)

Pixels = UInt8[Tensor, "3 H W"]


class PictureFolder(Dataset):
    """Pictures as uint8 RGB, shrunk to a short side and kept in one block of memory where they fit.

    What no longer fits is decoded again at every access. Unreadable files are left out, counted in `skipped` and named
    in the log; one that turns bad later is counted as well, and the next picture takes its place.

    Args:
        paths: the files.
        short_side: pixels; larger pictures are shrunk, smaller ones are left as they are.
        memory: bytes that decoded pictures may take.

    Raises:
        ImageError: not a single file could be read.
    """

    def __init__(
        self, paths: Sequence[Path], short_side: int, memory: int = 8 << 30, load: Callable = load_pixels
    ) -> None:
        self.short_side, self.load = short_side, load
        self.skipped: list[str] = []
        self.paths: list[Path] = []
        self._extents: list[tuple[int, int, int]] = []  # offset into the block, height, width
        kept: list[Tensor] = []
        used = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            progress = tqdm(paths, desc="decoding", unit="image", leave=False)
            for path, pixels in zip(progress, pool.map(self._try_load, paths), strict=True):
                if pixels is None:
                    continue
                self.paths.append(path)
                if used + pixels.numel() <= memory:
                    self._extents.append((used, pixels.shape[1], pixels.shape[2]))
                    kept.append(pixels.flatten())
                    used += pixels.numel()
                else:
                    memory = used  # later pictures stay on disk too, so that the block holds the first ones
        if not self.paths:
            raise ImageError(f"none of the {len(paths)} pictures could be read: {'; '.join(self.skipped[:3])}")
        if self.skipped:
            logger.warning("left out %d of %d pictures that could not be read", len(self.skipped), len(paths))
        self._block = torch.cat(kept) if kept else torch.empty(0, dtype=torch.uint8)

    def _try_load(self, path: Path) -> Pixels | None:
        try:
            return self.load(path, self.short_side)
        except ImageError as error:
            self.skipped.append(str(error))
            logger.warning("skipped: %s", error)
            return None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        if not 0 <= index < len(self):
            raise IndexError(index)
        for candidate in chain(range(index, len(self)), range(index)):
            if candidate < len(self._extents):
                offset, height, width = self._extents[candidate]
                return self._block[offset : offset + 3 * height * width].view(3, height, width)
            pixels = self._try_load(self.paths[candidate])
            if pixels is not None:
                return pixels
        raise ImageError(f"none of the {len(self)} pictures can be read any more; is their disk still there?")
