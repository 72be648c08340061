"""Paint the example style pictures.

Every picture is computed from scratch with numpy and pillow: nothing is copied from an existing painting. The six
manners are an impasto oil painting, a pointillist seaside, a stained glass window, an ink wash on rice paper, a colour
woodcut and a hatched drawing in charcoal and red chalk; each has its module in ``painting/``. All random choices are
seeded, so a run gives the same pictures each time:

    python tools/make_styles.py --output examples/styles
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from painting.hatching import paint_hatching
from painting.impasto import paint_impasto
from painting.ink_wash import paint_ink_wash
from painting.pointillism import paint_pointillism
from painting.stained_glass import paint_stained_glass
from painting.woodcut import paint_woodcut

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
JPEG_QUALITY = 92

PAINTERS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "impasto_dusk": paint_impasto,
    "pointillist_bay": paint_pointillism,
    "stained_glass": paint_stained_glass,
    "ink_wash": paint_ink_wash,
    "woodcut_wave": paint_woodcut,
    "charcoal_hatching": paint_hatching,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Paint all pictures, or those named on the command line, into a folder."""
    parser = argparse.ArgumentParser(description="Paint the example style pictures.")
    parser.add_argument("--output", type=Path, default=EXAMPLES / "styles", help="folder to write to")
    parser.add_argument("--only", nargs="+", choices=sorted(PAINTERS), help="paint only these")
    parser.add_argument("--seed", type=int, default=7, help="seed of all random choices")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    for number, (name, paint) in enumerate(PAINTERS.items()):
        if options.only and name not in options.only:
            continue
        path = options.output / f"{name}.jpg"
        paint(np.random.default_rng([options.seed, number])).save(path, quality=JPEG_QUALITY, optimize=True)
        print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
