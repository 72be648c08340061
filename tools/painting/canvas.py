"""What the painters share: colours, grids, noise, curves, light and the finished picture.

Each painter works on a canvas of twice the final size, which is reduced at the end to smooth the edges. Colours are
float arrays in 0..1, positions are in canvas pixels unless a name says ``across`` or ``down`` (both run from 0 to 1).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIZE = 512
CANVAS = 2 * SIZE


def colour(code: str) -> np.ndarray:
    """Turn a code such as ``"ffd166"`` into three numbers in 0..1."""
    return np.array([int(code[start : start + 2], 16) for start in (0, 2, 4)], dtype=np.float64) / 255.0


def as_bytes(value: np.ndarray) -> tuple[int, ...]:
    """Turn a colour in 0..1 into the tuple of integers that pillow draws with."""
    return tuple(int(channel) for channel in np.clip(np.round(np.asarray(value) * 255.0), 0, 255))


def unit_grid() -> tuple[np.ndarray, np.ndarray]:
    """Return how far across and how far down the canvas every pixel lies, both in 0..1."""
    ticks = (np.arange(CANVAS) + 0.5) / CANVAS
    across, down = np.meshgrid(ticks, ticks)
    return across, down


def noise(generator: np.random.Generator, rows: int, columns: int, octaves: int = 4) -> np.ndarray:
    """Return smooth noise with the given number of cells, normalised to mean 0 and deviation 1."""
    total = np.zeros((CANVAS, CANVAS))
    for octave in range(octaves):
        height, width = min(rows << octave, CANVAS) + 1, min(columns << octave, CANVAS) + 1
        cells = Image.fromarray(generator.normal(size=(height, width)).astype(np.float32))
        total += np.asarray(cells.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC), dtype=np.float64) * 0.5**octave
    return (total - total.mean()) / total.std()


def ridge_line(generator: np.random.Generator, cells: int, octaves: int = 6, roughness: float = 0.5) -> np.ndarray:
    """Return a smooth random height for every column of the canvas, about -1..1."""
    ticks = np.linspace(0.0, 1.0, CANVAS)
    total = np.zeros(CANVAS)
    for octave in range(octaves):
        knots = generator.uniform(-1.0, 1.0, size=(cells << octave) + 1)
        position = ticks * (len(knots) - 1)
        left = np.minimum(position.astype(int), len(knots) - 2)
        ease = position - left
        ease = ease * ease * (3.0 - 2.0 * ease)
        total += (knots[left] * (1.0 - ease) + knots[left + 1] * ease) * roughness**octave
    return total


def gradient(position: np.ndarray, stops: Sequence[tuple[float, str]]) -> np.ndarray:
    """Map positions to colours by interpolating between ``(position, colour code)`` stops."""
    places = [place for place, _ in stops]
    colours = np.array([colour(code) for _, code in stops])
    return np.stack([np.interp(position, places, colours[:, channel]) for channel in range(3)], axis=-1)


def cover(picture: np.ndarray, paint: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lay paint over the picture where the mask (0..1) says so."""
    opacity = np.clip(mask, 0.0, 1.0)[..., None]
    return picture * (1.0 - opacity) + paint * opacity


def soft_step(value: np.ndarray, width: float) -> np.ndarray:
    """Return 0 below zero and 1 above it with a ramp of the given width."""
    return np.clip(value / width + 0.5, 0.0, 1.0)


def blur(plane: np.ndarray, radius: float) -> np.ndarray:
    """Blur a single plane with a Gaussian."""
    reach = int(np.ceil(2.5 * radius))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    weights /= weights.sum()
    for _ in range(2):  # once down, once across
        padded = np.pad(np.asarray(plane, dtype=np.float32), ((reach, reach), (0, 0)), mode="edge")
        plane = sum(np.float32(weight) * padded[shift : shift + CANVAS] for shift, weight in enumerate(weights)).T
    return plane


def boundaries(label: np.ndarray) -> np.ndarray:
    """Return 1 where a pixel differs from its upper or left neighbour, else 0."""
    edge = np.zeros(label.shape)
    edge[1:, :] = label[1:, :] != label[:-1, :]
    edge[:, 1:] = np.maximum(edge[:, 1:], label[:, 1:] != label[:, :-1])
    return edge


def raking_light(picture: np.ndarray, relief: np.ndarray, strength: float) -> np.ndarray:
    """Light the surface relief of the paint or the canvas from the upper left."""
    slope_down, slope_across = np.gradient(relief)
    return picture * (1.0 + np.clip(strength * (slope_down + slope_across), -0.45, 0.45))[..., None]


def canvas_weave() -> np.ndarray:
    """Return the relief of a plain woven canvas."""
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS] * (2.0 * np.pi / 9.0)
    return np.where(np.sin(rows / 2) * np.sin(columns / 2) > 0, np.sin(rows), np.sin(columns))


def paper_grain(generator: np.random.Generator) -> np.ndarray:
    """Return the tooth of a rough paper, mean 0 and deviation 1."""
    return noise(generator, CANVAS // 5, CANVAS // 5, octaves=2)


def smooth_curve(points: Sequence[tuple[float, float]], samples: int = 90) -> np.ndarray:
    """Pass a Catmull-Rom curve through the points."""
    knots = np.array([points[0], *points, points[-1]], dtype=np.float64)
    position = np.linspace(0.0, len(points) - 1 - 1e-9, samples)
    start = position.astype(int)
    part = (position - start)[:, None]
    before, first, second, after = (knots[start + shift] for shift in range(4))
    return 0.5 * (
        2 * first
        + (second - before) * part
        + (2 * before - 5 * first + 4 * second - after) * part**2
        + (3 * first - before - 3 * second + after) * part**3
    )


def finish(picture: np.ndarray) -> Image.Image:
    """Reduce the canvas to the final size."""
    pixels = (np.clip(picture, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
