"""How long a big picture takes in tiles, in how much memory, and how far it is from the picture that is not cut.

    python benchmarks/big_print.py [--sizes 2048 8192] [--tile 1024] [--precision auto] [--files]

The memory is the peak of the whole process, so sizes should grow: weights and libraries, the photo and the result in
8 bits, and whatever the tiles take.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from arbitrary_nst.image import load_image, load_pixel_picture, save_pixels
from arbitrary_nst.nn.features import pink_noise
from arbitrary_nst.stylization.options import Precision
from arbitrary_nst.stylization.stylizer import Stylizer

STYLE = Path(__file__).resolve().parents[1] / "examples" / "styles" / "stained_glass.jpg"


@dataclass(frozen=True)
class Config:
    """Paint square pictures in tiles."""

    sizes: tuple[int, ...] = (2048,)
    """Sides in pixels. Up to 2048 the difference to the picture that is not cut is printed too."""
    tile: int = 1024
    model: str = "light"
    precision: Precision = "auto"
    files: bool = False
    """Write the photo to a file, read it, and write the result, as the command line would."""
    threads: int = 1


def photo(size: int) -> torch.Tensor:
    """A picture as smooth and as rough as natural ones, brighter towards the right: (3, size, size) in 0..255."""
    noise = pink_noise(min(size, 1024)).mul(191).byte()
    pixels = noise.repeat(1, -(-size // noise.shape[1]), -(-size // noise.shape[2]))[:, :size, :size]
    return pixels.add_(torch.linspace(0, 64, size).byte())


def peak() -> float:
    """GiB that the process has had resident at most."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    stylizer = Stylizer.from_pretrained(config.model, "cpu", config.precision)
    code = stylizer.encode_style(load_image(STYLE))
    print(f"{config}; {stylizer.dtype}, torch {torch.__version__}; {peak():.2f} GiB before the first picture")
    with tempfile.TemporaryDirectory() as folder:
        for size in config.sizes:
            pixels = photo(size)
            if config.files:
                save_pixels(pixels, Path(folder) / "photo.png")
                del pixels
                pixels = load_pixel_picture(Path(folder) / "photo.png").rgb
            start, processor = time.perf_counter(), time.process_time()
            painted = stylizer.paint_pixels(pixels, code, tile=config.tile)
            seconds, processor = time.perf_counter() - start, time.process_time() - processor
            print(f"{size:6}: {seconds:7.1f} s ({processor:.1f} s of processor), peak {peak():.2f} GiB", flush=True)
            if config.files:
                save_pixels(painted, Path(folder) / "painted.png")
                print(f"        written, peak {peak():.2f} GiB", flush=True)
            if size <= 2048:
                photograph = pixels[None].float() / 255
                whole = stylizer(photograph, code, tile=None)
                difference = 255 * (stylizer(photograph, code, tile=config.tile) - whole).abs()
                print(f"        from the whole: mean {difference.mean():.5f}/255, max {difference.max():.5f}/255")


if __name__ == "__main__":
    main(tyro.cli(Config))
