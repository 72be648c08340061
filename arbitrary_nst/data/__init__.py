"""Pictures to train on."""

from arbitrary_nst.data.batches import Batch, Batches, Resumable, batches
from arbitrary_nst.data.opening import hold_out, open_pictures
from arbitrary_nst.data.pairs import Augmentation, Pairs
from arbitrary_nst.data.pictures import PictureCollection
from arbitrary_nst.data.streams import PictureStream

__all__ = [
    "Augmentation",
    "Batch",
    "Batches",
    "Pairs",
    "PictureCollection",
    "PictureStream",
    "Resumable",
    "batches",
    "hold_out",
    "open_pictures",
]
