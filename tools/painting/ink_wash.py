"""Ink wash: mountains in mist on rice paper."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from painting.canvas import (
    CANVAS,
    blur,
    colour,
    cover,
    finish,
    noise,
    paper_grain,
    ridge_line,
    soft_step,
    unit_grid,
)


def rice_paper(generator: np.random.Generator) -> np.ndarray:
    """Return warm paper with cloudy tone, tooth and a scatter of long fibres."""
    fibres = Image.new("L", (CANVAS, CANVAS), 128)
    pen = ImageDraw.Draw(fibres)
    for _ in range(900):
        x, y = generator.uniform(0, CANVAS, size=2)
        turn, bend = generator.uniform(0, 2 * np.pi), generator.normal(scale=0.25)
        points = [(x, y)]
        for step in range(8):
            x, y = x + 7 * np.cos(turn + bend * step), y + 7 * np.sin(turn + bend * step)
            points.append((x, y))
        pen.line(points, fill=int(generator.choice([96, 108, 150, 160])), width=2)
    fibre_plane = np.asarray(fibres.filter(ImageFilter.GaussianBlur(1.0)), dtype=np.float64) / 255.0 - 0.5
    tone = 1.0 + 0.018 * noise(generator, 3, 3) + 0.014 * paper_grain(generator) + 0.28 * fibre_plane
    return colour("ece3cd") * tone[..., None]


def brush_pine(pen: ImageDraw.ImageDraw, generator: np.random.Generator, x: float, y: float, size: float) -> None:
    """Draw a small leaning pine with a few flat pads of needles into an ink plane."""
    lean = generator.normal(scale=0.18)
    trunk = [
        (x + lean * size * step**2 + generator.normal(scale=1.0), y - size * step) for step in np.linspace(0, 1, 7)
    ]
    for (start, stop), width in zip(pairwise(trunk), [6, 5, 5, 4, 3, 3], strict=True):
        pen.line([start, stop], fill=215, width=max(2, int(width * size / 90)))
    for level in np.linspace(0.38, 1.0, 5):
        side = generator.choice([-1.0, 1.0])
        reach = size * (0.62 - 0.42 * level)
        middle_x, middle_y = x + lean * size * level**2 + side * 0.5 * reach, y - size * level
        for _ in range(int(70 * reach / 30)):
            needle_x = middle_x + reach * float(np.clip(generator.normal(scale=0.55), -1.1, 1.1))
            needle_y = (
                middle_y
                + generator.normal(scale=0.09 * reach)
                + 0.0035 * (needle_x - middle_x) ** 2 / max(reach / 30, 0.4)
            )
            tip = generator.normal(scale=0.06 * size)
            pen.line(
                [(needle_x, needle_y), (needle_x + tip, needle_y - 0.09 * size)],
                fill=int(generator.integers(130, 245)),
                width=2,
            )


def wash_mountains(
    generator: np.random.Generator, bleed: np.ndarray, pigment: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the ink of ranges that sink into the mist below them, and the crest line of each range."""
    across, down = unit_grid()
    ink = 0.05 + 0.02 * noise(generator, 2, 3, octaves=4)
    # Each range: base line, rise of the summit, ink strength, depth over which the wash fades, place of the summit.
    ranges = [
        (0.42, 0.2, 0.2, 0.26, 0.17),
        (0.52, 0.33, 0.36, 0.3, 0.72),
        (0.66, 0.31, 0.6, 0.24, 0.16),
        (1.03, 0.32, 0.8, 0.22, 0.97),
    ]
    profiles = []
    for base, rise, strength, fade, summit in ranges:
        profile = base + 0.2 * rise * ridge_line(generator, 4, octaves=6, roughness=0.55)
        profile -= rise * np.exp(-(np.abs((across[0] - summit) / 0.2) ** 1.3))
        profiles.append(profile)
        depth = down - profile[None, :] + 0.004 * bleed
        inside, below = soft_step(depth, 0.008), np.clip(depth, 0.0, None)
        wash = np.exp(-2.2 * below / fade) * (0.72 + 0.1 * bleed)
        wash += 0.4 * np.exp(-((depth / 0.01) ** 2))  # pigment gathers at the wet edge
        # Dry strokes that fan out from the summit model the rock.
        strokes = noise(generator, 16, 60, octaves=3)
        fan = np.clip((summit + (across - summit) / (1.0 + 2.2 * below)) * CANVAS, 0, CANVAS - 1).astype(int)
        strokes = strokes[np.arange(CANVAS)[:, None], fan]
        rock = soft_step(strokes + 0.4 * pigment - 0.5, 0.7) * np.exp(-1.3 * below / fade)
        ink = ink * (1.0 - 0.97 * inside) + strength * inside * np.clip(wash + 0.42 * rock - 0.08, 0.0, 1.2)
    mist = np.exp(-(((down - 0.66 - 0.03 * np.sin(across * 7.0)) / 0.05) ** 2))
    mist *= soft_step(noise(generator, 5, 2) + 0.4, 1.4)
    return ink * (1.0 - 0.75 * mist), profiles


def brush_details(generator: np.random.Generator, profiles: Sequence[np.ndarray]) -> np.ndarray:
    """Return the ink of the pines on the crests, of a boat and of some birds."""
    trees = Image.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(trees)
    for number, x, size in [
        (3, 985, 150),
        (3, 915, 210),
        (3, 850, 130),
        (3, 800, 80),
        (2, 250, 60),
        (2, 285, 46),
        (2, 70, 66),
        (2, 40, 50),
    ]:
        brush_pine(pen, generator, x, CANVAS * profiles[number][x] + 8, size)
    pen.line([(330, 902), (365, 916), (440, 917), (482, 898)], fill=230, width=7, joint="curve")
    pen.chord((366, 884, 432, 948), 185, 355, fill=150, outline=220)
    pen.line([(455, 905), (462, 862)], fill=235, width=5)
    pen.line([(440, 862), (486, 868)], fill=235, width=5)
    for x, y in [(560, 150), (604, 128), (648, 160), (690, 140)]:
        pen.arc((x - 18, y, x, y + 16), 200, 340, fill=200, width=3)
        pen.arc((x, y, x + 18, y + 16), 200, 340, fill=200, width=3)
    return np.asarray(trees.filter(ImageFilter.GaussianBlur(1.0)), dtype=np.float64) / 255.0


def cut_seal() -> np.ndarray:
    """Return the print of a square seal with an invented sign, 0..1."""
    seal = Image.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(seal)
    pen.rounded_rectangle((66, 80, 130, 144), radius=7, fill=255)
    for line in [
        [(80, 94), (116, 94)],
        [(98, 94), (98, 130)],
        [(80, 112), (116, 112)],
        [(80, 130), (116, 130)],
        [(80, 94), (80, 112)],
    ]:
        pen.line(line, fill=0, width=5)
    return np.asarray(seal, dtype=np.float64) / 255.0


def paint_ink_wash(generator: np.random.Generator) -> Image.Image:
    """Layers of diluted ink with bleeding edges and gathered pigment, and a red seal."""
    across, down = unit_grid()
    bleed, pigment = noise(generator, 24, 24, octaves=4), noise(generator, 60, 60, octaves=3)
    ink, profiles = wash_mountains(generator, bleed, pigment)
    drawn = brush_details(generator, profiles)
    ink = ink + 0.85 * drawn + 0.3 * blur(drawn, 6.0)
    water = np.exp(-(((down - 0.93) / 0.05) ** 2)) * soft_step(noise(generator, 90, 5, octaves=2) - 0.9, 0.8)
    ink = np.clip(ink + 0.22 * water * (1.0 - soft_step(across - 0.68, 0.2)), 0.0, 1.15)
    ink = ink * (1.0 + 0.06 * pigment + 0.05 * bleed)
    paper = rice_paper(generator)
    picture = paper * np.exp(-2.6 * np.clip(ink, 0, 1.1)[..., None] * np.array([1.0, 0.97, 0.9]))
    worn = soft_step(paper_grain(generator) + 1.2, 1.0)
    return finish(cover(picture, colour("b3261e") * np.ones(3), 0.88 * cut_seal() * worn))
