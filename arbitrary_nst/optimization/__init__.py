"""A picture by descent on its own pixels (Gatys et al. 2015): presets, targets, canvases, and the job over files."""
