"""Paths to pictures: those on a disk as a collection, those elsewhere as a stream; and what is held out of training."""

from collections.abc import Sequence

import torch
from torch.utils.data import Subset

from arbitrary_nst.data.pictures import PictureCollection
from arbitrary_nst.data.sources import Pixels, find_pictures
from arbitrary_nst.data.streams import PictureStream, is_stream
from arbitrary_nst.paths import PathLike


def open_pictures(
    paths: Sequence[PathLike], short_side: int, memory: int = 8 << 30, device: torch.device | None = None
) -> PictureCollection | PictureStream:
    """What files, folders, globs, zip files and tar files hold, or the stream that addresses and commands name.

    Raises ImageError where a path gives nothing or no picture can be read, and ValueError where paths and addresses
    are mixed, or where the pictures are to be kept on a device and are a stream or larger than `memory`.
    """
    streams = [path for path in paths if is_stream(path)]
    if not streams:
        return PictureCollection(find_pictures(paths), short_side, memory, device)
    if len(streams) < len(paths):
        raise ValueError(f"{streams[0]}: addresses and local files cannot be mixed; name either")
    if device is not None:
        raise ValueError(f"{streams[0]}: a stream cannot be kept on {device}; copy the shards to a disk")
    return PictureStream(streams, short_side)


def hold_out(
    pictures: PictureCollection | PictureStream, count: int, seed: int
) -> tuple[Subset | PictureStream, Subset | list[Pixels]]:
    """Pictures to train on, and at most `count` that are held out of them.

    At most a tenth is held out: single pictures, which ones the seed decides, or the last shard of a stream. Of fewer
    than ten pictures or shards none is held out, and all are used for both.
    """
    if isinstance(pictures, PictureStream):
        if len(pictures.urls) < 10 or not count:
            return pictures, pictures.first(max(1, count))
        return pictures.part(slice(-1)), pictures.part(slice(-1, None)).first(count)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    count = min(count, len(order) // 10)
    return Subset(pictures, order[count:]), Subset(pictures, order[:count] or order)
