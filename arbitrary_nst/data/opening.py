"""Paths to pictures: those on a disk as a data set, those elsewhere as a stream; and what is held out of training."""

from collections.abc import Sequence

import torch
from torch.utils.data import Subset

from arbitrary_nst.data.pictures import ImageDataset
from arbitrary_nst.data.sources import Pixels, find_pictures
from arbitrary_nst.data.streams import ImageStream, is_stream
from arbitrary_nst.errors import UsageError
from arbitrary_nst.runtime.files import PathLike, Results


def open_pictures(
    paths: Sequence[PathLike],
    short_side: int,
    memory: int = 8 << 30,
    device: torch.device | None = None,
    results: Results | None = None,
) -> ImageDataset | ImageStream:
    """Open the pictures of files, folders, globs, zip files and tar files, or the stream of addresses and commands.

    Args:
        results: as in `runtime.files.find_images`.

    Raises ImageError where a path gives nothing or no picture can be read, and ValueError where paths and addresses
    are mixed, or where the pictures are to be kept on a device and are a stream or larger than `memory`.
    """
    streams = [path for path in paths if is_stream(path)]
    if not streams:
        return ImageDataset(find_pictures(paths, results), short_side, memory, device)
    if len(streams) < len(paths):
        raise UsageError(f"{streams[0]}: addresses and local files cannot be mixed; name either")
    if device is not None:
        raise UsageError(f"{streams[0]}: a stream cannot be kept on {device}; copy the shards to a disk")
    return ImageStream(streams, short_side)


def train_val_split(
    pictures: ImageDataset | ImageStream, count: int, seed: int
) -> tuple[Subset | ImageStream, Subset | list[Pixels], int]:
    """Pictures to train on, pictures to validate on, and how many of these are held out of training: at most `count`.

    At most a tenth is held out: single pictures, which ones the seed decides, or the last shard of a stream. Of fewer
    than ten pictures or shards none is held out, and all are used for both.
    """
    if isinstance(pictures, ImageStream):
        if len(pictures.urls) < 10 or not count:
            return pictures, pictures.first(max(1, count)), 0
        held = pictures.part(slice(-1, None)).first(count)
        return pictures.part(slice(-1)), held, len(held)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(count, len(order) // 10)
    return Subset(pictures, order[count:]), Subset(pictures, order[:count] or order), count
