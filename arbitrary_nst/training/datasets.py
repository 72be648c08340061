"""The pictures of a run: pairs to train on, and batches of pairs to validate on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import Subset, default_collate

from arbitrary_nst.data import (
    Augmentation,
    Batch,
    ImageDataset,
    ImageStream,
    PairDataset,
    open_pictures,
    train_val_split,
)
from arbitrary_nst.errors import UsageError
from arbitrary_nst.runtime.devices import channels_last
from arbitrary_nst.runtime.files import PathLike, unique_names
from arbitrary_nst.training.config import TrainConfig

VALIDATION_SIZE = 256
"""Side in pixels of the squares that a run is validated on, where its crops are smaller."""


@dataclass(frozen=True)
class HeldOut:
    """Numbers of held-out pictures; 0: validation is on pictures that are trained on.

    A model of fixed styles is trained on all of its paintings; `fixed` says so.
    """

    photos: int
    paintings: int
    fixed: bool = False

    def description(self) -> str:
        """Description of the pictures that figures are of."""
        photos, paintings = (
            f"{name} that were held out ({count})" if count else f"{name} that were trained on (none is held out)"
            for name, count in (("photos", self.photos), ("paintings", self.paintings))
        )
        return f"{photos}, in the styles that were trained on" if self.fixed else f"{photos} and {paintings}"

    def missing(self) -> list[str]:
        """The options whose pictures should be held out, but are not."""
        photos = [] if self.photos else ["--content-data"]
        return photos if self.paintings or self.fixed else [*photos, "--style-data"]


def names_of(styles: ImageDataset | ImageStream) -> list[str]:
    """Names of the paintings in a model of fixed styles. Streamed ones have no names."""
    return list(unique_names(styles.paths).values()) if isinstance(styles, ImageDataset) else []


def opened(
    paths: Sequence[PathLike], config: TrainConfig, device: torch.device | None = None
) -> ImageDataset | ImageStream:
    memory = int(config.memory_gb / 2 * (1 << 30))
    results = dict.fromkeys((config.run_dir, config.run_dir / "samples"), "")
    return open_pictures(paths, config.picture_size, memory, device, results)


def split(
    contents: ImageDataset | ImageStream,
    styles: ImageDataset | ImageStream,
    config: TrainConfig,
    known: Sequence[int] | None = None,
) -> tuple[PairDataset, Batch, HeldOut]:
    """Pairs to train on, a fixed batch of held-out pairs (`train_val_split`), and how many pictures these are.

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
    train_contents, held_contents, photos = train_val_split(contents, config.validation_pairs, config.seed)
    count = config.validation_pairs if known is None else 0
    train_styles, held_styles, paintings = train_val_split(styles, count, config.seed + 1)
    train_numbers = held_numbers = None
    if known is not None:
        if not isinstance(train_styles, Subset) or not isinstance(held_styles, Subset):
            raise UsageError("--style-data: a model of fixed styles needs its paintings as files, not as a stream")
        train_numbers, held_numbers = ([known[i] for i in part.indices] for part in (train_styles, held_styles))
    size = max(config.crop_size, min(2 * config.crop_size, VALIDATION_SIZE))
    fixed = PairDataset(held_contents, held_styles, size, config.seed, plain, held_numbers)
    validation = default_collate([fixed[index][:3] for index in range(config.validation_pairs)])
    train_pairs = PairDataset(train_contents, train_styles, config.crop_size, config.seed, vary, train_numbers)
    return train_pairs, tuple(validation), HeldOut(photos, paintings, fixed=known is not None)


def train_subset(pairs: PairDataset, side: int, count: int, augmentation: Augmentation | None = None) -> Batch:
    """Pairs of pictures that are trained on, cut as the held-out ones are, or augmented as asked."""
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0)
    chosen = PairDataset(_some(pairs.contents), _some(pairs.styles), side, pairs.seed, augmentation or plain)
    content, style, number, _ = default_collate([chosen[index] for index in range(count)])
    return content, style, number


def _some(pictures: Any) -> Any:
    return pictures.first(32) if isinstance(pictures, ImageStream) else pictures


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch where it is computed with."""
    content, style, number = batch
    return channels_last(content, device), channels_last(style, device), number.to(device, non_blocking=True)
