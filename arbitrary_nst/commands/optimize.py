"""The command that optimizes one picture, or a grid of them."""

from arbitrary_nst.optimization.jobs import PRESETS, OptimizeConfig, optimize_files

__all__ = ["PRESETS", "OptimizeConfig", "optimize_files"]
