"""Training: options, pictures, networks, the loop, its record and its checkpoints."""

from arbitrary_nst.errors import CheckpointError, TrainingDiverged, TrainingInterrupted
from arbitrary_nst.training.config import PRESETS, TrainConfig
from arbitrary_nst.training.loop import fit

__all__ = ["PRESETS", "CheckpointError", "TrainConfig", "TrainingDiverged", "TrainingInterrupted", "fit"]
