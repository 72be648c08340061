"""Training: options, pictures, networks, the loop, its record and its checkpoints."""

from arbitrary_nst.training.checkpoints import CheckpointError
from arbitrary_nst.training.config import PRESETS, TrainConfig
from arbitrary_nst.training.interruption import TrainingInterrupted
from arbitrary_nst.training.loop import TrainingDiverged, fit, train

__all__ = ["PRESETS", "CheckpointError", "TrainConfig", "TrainingDiverged", "TrainingInterrupted", "fit", "train"]
