"""The command that stylizes photos."""

from arbitrary_nst.stylization.jobs import StylizeConfig, stylize_files

__all__ = ["StylizeConfig", "stylize_files"]
