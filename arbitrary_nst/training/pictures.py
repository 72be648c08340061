"""The pictures of a run: pairs to train on, and batches of pairs to validate on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Subset, default_collate

from arbitrary_nst.data import (
    Augmentation,
    Batch,
    Pairs,
    PictureCollection,
    PictureStream,
    hold_out,
    open_pictures,
)
from arbitrary_nst.devices import channels_last
from arbitrary_nst.paths import PathLike, unique_names
from arbitrary_nst.training.config import TrainConfig

VALIDATION_SIZE = 256
"""Side in pixels of the squares that a run is validated on, where its crops are smaller."""


def names_of(styles: PictureCollection | PictureStream) -> list[str]:
    """What a model of fixed styles calls the paintings. Streamed ones have no names."""
    return list(unique_names(styles.paths).values()) if isinstance(styles, PictureCollection) else []


def opened(
    paths: Sequence[PathLike], config: TrainConfig, device: torch.device | None = None
) -> PictureCollection | PictureStream:
    return open_pictures(paths, config.picture_size, int(config.memory_gb / 2 * (1 << 30)), device)


def split(
    contents: PictureCollection | PictureStream,
    styles: PictureCollection | PictureStream,
    config: TrainConfig,
    known: Sequence[int] | None = None,
) -> tuple[Pairs, Batch]:
    """Pairs to train on, and a fixed batch of pairs of held-out photos and paintings (`hold_out`).

    Args:
        known: numbers by which a model of fixed styles knows the paintings. None of them is held out then, and they
            are what is to be learned: crops show all of their short side, and are not mirrored or given other colours;
            no photo is its own style.

    Raises ValueError where paintings with numbers are streamed.
    """
    vary = config.augmentation
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0, flip_styles=known is None)
    if known is not None:
        vary = replace(plain, content_sizes=vary.content_sizes)
    train_contents, held_contents = hold_out(contents, config.validation_pairs, config.seed)
    train_styles, held_styles = hold_out(styles, config.validation_pairs if known is None else 0, config.seed + 1)
    train_numbers = held_numbers = None
    if known is not None:
        if not isinstance(train_styles, Subset) or not isinstance(held_styles, Subset):
            raise ValueError("--style-data: a model of fixed styles needs its paintings as files, not as a stream")
        train_numbers, held_numbers = ([known[i] for i in part.indices] for part in (train_styles, held_styles))
    size = max(config.crop_size, min(2 * config.crop_size, VALIDATION_SIZE))
    fixed = Pairs(held_contents, held_styles, size, config.seed, plain, held_numbers)
    validation = default_collate([fixed[index][:3] for index in range(config.validation_pairs)])
    train_pairs = Pairs(train_contents, train_styles, config.crop_size, config.seed, vary, train_numbers)
    return train_pairs, tuple(validation)


def familiar(pairs: Pairs, side: int, count: int, augmentation: Augmentation | None = None) -> Batch:
    """Pairs of pictures that are trained on, cut as the held-out ones are, or augmented as asked."""
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0)
    chosen = Pairs(_some(pairs.contents), _some(pairs.styles), side, pairs.seed, augmentation or plain)
    content, style, number, _ = default_collate([chosen[index] for index in range(count)])
    return content, style, number


def _some(pictures: Any) -> Any:
    return pictures.first(32) if isinstance(pictures, PictureStream) else pictures


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch where it is computed with."""
    content, style, number = batch
    return channels_last(content, device), channels_last(style, device), number.to(device, non_blocking=True)
