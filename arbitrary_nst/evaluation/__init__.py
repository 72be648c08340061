"""Methods compared: every method makes every pair, every picture is scored, one table says the rest."""

from arbitrary_nst.evaluation.command import EvaluateConfig, evaluate

__all__ = ["EvaluateConfig", "evaluate"]
