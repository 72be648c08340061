"""Pictures by index: decoded at their first use and kept in memory that all worker processes share, or on a device."""

import logging
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from arbitrary_nst.data.sources import Encoded, Pixels
from arbitrary_nst.errors import UsageError
from arbitrary_nst.runtime.files import ImageError
from arbitrary_nst.runtime.processes import is_main_process

logger = logging.getLogger(__name__)

DECODED_AT_ONCE = 2000
"""A data set of at most so many pictures is decoded when it is opened."""

_UNREADABLE = -1  # in place of a height


class ImageDataset(Dataset):
    """Pictures as uint8 RGB, shrunk to a short side.

    A picture is decoded when it is first asked for, and kept while `memory` lasts; what does not fit is decoded at
    every use. Worker processes, however they are started, share what is kept. A small data set (`DECODED_AT_ONCE`)
    is decoded at once, by threads, and so is one that is kept on a device; files that cannot be read are left out
    then, listed in `skipped` and named in the log. In a larger one they are found when they are asked for.

    Args:
        sources: where the encoded pictures lie.
        short_side: pixels; larger pictures are shrunk, smaller ones are left as they are.
        memory: bytes that decoded pictures may take.
        device: where all of them are to be kept; indexing gives tensors there. None: in shared memory.
        load: decodes one.

    Raises:
        ImageError: all was to be decoded, and not a single picture could be.
        ValueError: they are to be kept on a device and do not fit into `memory`.
    """

    def __init__(
        self,
        sources: Sequence[Encoded],
        short_side: int,
        memory: int = 8 << 30,
        device: torch.device | None = None,
        load: Callable[[Encoded, int], Pixels] = Encoded.load,
    ) -> None:
        self.sources, self.short_side, self.load = sources, short_side, load
        self.skipped: list[str] = []
        self._places: Sequence[int] = range(len(sources))  # of the pictures in `sources`
        self._kept = SharedPixels(len(sources), memory)
        if device is not None or len(sources) <= DECODED_AT_ONCE:
            self._decode_all()
        if device is not None:
            missing = sum(not self._kept.has(place) for place in self._places)
            if missing:
                raise UsageError(
                    f"{missing} of {len(self)} pictures do not fit into {memory / 2**30:.3g} GB on {device}: raise "
                    "--memory-gb, lower --picture-size, or leave them in the computer's memory"
                )
            self._kept.move(device)

    @property
    def paths(self) -> list[Path]:
        """Names of the pictures; those in archives are named as if the archive were a folder."""
        return [Path(self.sources[place].name) for place in self._places]

    def _decode_all(self) -> None:
        def attempt(place: int) -> Pixels | ImageError:
            try:
                return self.load(self.sources[place], self.short_side)
            except ImageError as error:
                return error

        places, readable = self._places, []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            progress = tqdm(places, desc="decoding", unit="image", leave=False, disable=not is_main_process())
            for start in range(0, len(places), 256):  # so that few decoded pictures wait to be kept
                some = places[start : start + 256]
                for place, result in zip(some, pool.map(attempt, some), strict=True):
                    progress.update()
                    if isinstance(result, ImageError):
                        self.skipped.append(str(result))
                        logger.warning("skipped: %s", result)
                    else:
                        readable.append(place)
                        self._kept.keep(place, result)
            progress.close()
        if not readable:
            raise ImageError(f"none of the {len(places)} pictures can be read: {'; '.join(self.skipped[:3])}")
        if self.skipped:
            logger.warning("left out %d of %d pictures that could not be read", len(self.skipped), len(places))
        self._places = readable

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Pixels:
        """Raises ImageError where the file cannot be read; it is named in the log the first time."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = self._places[index]
        pixels = self._kept.get(place)
        if pixels is not None:
            return pixels
        source = self.sources[place]
        if self._kept.is_unreadable(place):
            raise ImageError(f"{source.name}: could not be read before")
        try:
            pixels = self.load(source, self.short_side)
        except ImageError as error:
            self._kept.mark_unreadable(place)
            logger.warning("skipped: %s", error)
            raise
        self._kept.keep(place, pixels)
        return pixels


class SharedPixels:
    """Decoded pictures in one stretch of memory that processes share; it grows as it is written to.

    Before the pixels lies a table: a row a picture, of where its pixels begin, its height (0: not decoded yet; below:
    unreadable) and width; in a last row, where the free bytes begin, and whether a picture did not fit. From then on
    none is kept, so that which ones are does not depend on their sizes.
    """

    def __init__(self, count: int, memory: int) -> None:
        self._count, self._size = count, 24 * (count + 1) + memory
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("pictures")
            self._file = f"/proc/{os.getpid()}/fd/{descriptor}"
            self._closing = weakref.finalize(self, os.close, descriptor)
        else:
            descriptor, self._file = tempfile.mkstemp(prefix="pictures-")
            os.close(descriptor)
            self._closing = weakref.finalize(self, _remove, self._file)
        self._lock = get_context("spawn").Lock()  # which forked processes can share too
        self._map()

    def _map(self) -> None:
        self._pixels = torch.from_file(self._file, shared=True, size=self._size, dtype=torch.uint8)
        self._table = self._pixels[: 24 * (self._count + 1)].view(torch.int64).view(-1, 3)

    def __getstate__(self) -> dict:
        return {name: getattr(self, name) for name in ("_count", "_size", "_file", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._map()

    def _row(self, place: int) -> list[int]:
        with self._lock:
            return self._table[place].tolist()

    def has(self, place: int) -> bool:
        return self._row(place)[1] > 0

    def is_unreadable(self, place: int) -> bool:
        return self._row(place)[1] == _UNREADABLE

    def mark_unreadable(self, place: int) -> None:
        with self._lock:
            self._table[place, 1] = _UNREADABLE

    def get(self, place: int) -> Pixels | None:
        """The pixels as they lie in the shared memory, not to be written to; None where they were not kept."""
        offset, height, width = self._row(place)
        return self._pixels[offset : offset + 3 * height * width].view(3, height, width) if height > 0 else None

    def keep(self, place: int, pixels: Pixels) -> None:
        """Keep a picture, unless the memory is full."""
        with self._lock:
            if self._table[place, 1] > 0:  # another process was faster
                return
            free, full, _ = self._table[-1].tolist()
            offset = max(free, 24 * (self._count + 1))
            end = offset + pixels.numel()
            if full or end > self._size:
                self._table[-1, 1] = True
                return
            self._pixels[offset:end] = pixels.flatten()
            self._table[-1, 0] = end
            self._table[place] = torch.tensor([offset, *pixels.shape[1:]])

    def move(self, device: torch.device) -> None:
        """Move the kept pictures to a device and free the shared memory; nothing more is kept after that."""
        self._table = self._table.clone()
        self._pixels = self._pixels[: int(self._table[-1, 0])].to(device, copy=True)
        self._size = 0
        self._closing()


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
