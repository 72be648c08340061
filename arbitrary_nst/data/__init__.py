"""Pictures to train on."""

from arbitrary_nst.data.batches import Batch, Batches, Resumable, batches
from arbitrary_nst.data.opening import open_pictures, train_val_split
from arbitrary_nst.data.pairs import Augmentation, PairDataset
from arbitrary_nst.data.pictures import ImageDataset
from arbitrary_nst.data.streams import ImageStream

__all__ = [
    "Augmentation",
    "Batch",
    "Batches",
    "ImageDataset",
    "ImageStream",
    "PairDataset",
    "Resumable",
    "batches",
    "open_pictures",
    "train_val_split",
]
