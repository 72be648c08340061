"""Video in the style of paintings: any length in flat memory, steady strokes, audio and timing as they were."""

from arbitrary_nst.video.command import VideoConfig, stylize_video

__all__ = ["VideoConfig", "stylize_video"]
