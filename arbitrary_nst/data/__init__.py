"""Pictures to train on."""

from arbitrary_nst.data.folders import PictureFolder
from arbitrary_nst.data.pairs import Augmentation, Pairs, Resumable, batches

__all__ = ["Augmentation", "Pairs", "PictureFolder", "Resumable", "batches"]
