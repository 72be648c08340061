"""Colour woodcut: breaking waves under a red sun."""

import numpy as np
from PIL import Image, ImageDraw

from painting.canvas import (
    CANVAS,
    as_bytes,
    colour,
    cover,
    finish,
    gradient,
    noise,
    paper_grain,
    smooth_curve,
    soft_step,
    unit_grid,
)

# Both sides of a breaking wave from its foot to the tip of the crest, in units of its width and height.
WAVE_BACK = [
    (-1.1, -0.2),
    (-0.5, 0.02),
    (-0.1, 0.17),
    (0.17, 0.42),
    (0.37, 0.74),
    (0.56, 0.96),
    (0.77, 1.0),
    (0.91, 0.88),
    (0.95, 0.7),
]
WAVE_FACE = [
    (2.2, -0.2),
    (1.5, -0.02),
    (1.08, 0.08),
    (0.82, 0.22),
    (0.68, 0.42),
    (0.66, 0.6),
    (0.73, 0.75),
    (0.84, 0.8),
    (0.95, 0.7),
]


def carve_foam(pen: ImageDraw.ImageDraw, generator: np.random.Generator, edge: np.ndarray, size: float) -> None:
    """Print scalloped foam along an edge: outlined discs, and curled fingers near the tip."""
    key, foam = as_bytes(colour("142748")), as_bytes(colour("f4ead2"))
    discs = []
    for place, part in zip(edge, np.linspace(0.35, 1.0, len(edge)), strict=True):
        radius = size * part * generator.uniform(0.028, 0.052)
        discs.append((*(place + generator.normal(scale=0.012 * size, size=2)), radius))
    for drip in range(16):
        place = edge[-1 - 2 * (drip // 2)]
        fall = generator.uniform(0.02, 0.1, size=2) * size
        discs.append(
            (
                place[0] + fall[0] * generator.choice([-0.3, 1.0]),
                place[1] + fall[1],
                size * generator.uniform(0.012, 0.03),
            )
        )
    for border, fill in [(0.009 * size + 2, key), (0.0, foam)]:
        for x, y, radius in discs:
            pen.ellipse((x - radius - border, y - radius - border, x + radius + border, y + radius + border), fill=fill)
    for x, y, radius in discs[::2]:
        inner = radius * 0.62
        pen.arc((x - inner, y - inner, x + inner, y + inner), 20, 190, fill=as_bytes(colour("7fa6bf")), width=3)
    for _ in range(26):
        x, y = edge[generator.integers(len(edge) // 2, len(edge))] + generator.normal(scale=0.13 * size, size=2)
        radius = generator.uniform(2.0, 5.5)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=foam)


def carve_wave(
    pen: ImageDraw.ImageDraw, generator: np.random.Generator, origin: tuple[float, float], width: float, height: float
) -> None:
    """Print one curling wave: a dark body with carved streaks that follow it up into the crest."""
    place = np.array([[width, -height]])
    back = smooth_curve(WAVE_BACK) * place + np.array(origin)
    face = smooth_curve(WAVE_FACE) * place + np.array(origin)
    key, inks = (
        as_bytes(colour("142748")),
        [as_bytes(colour(code)) for code in ("1f4f86", "2f6ea5", "8fb9c9", "dfe6d3")],
    )
    as_points = [(float(x), float(y)) for x, y in np.concatenate([back, face[::-1]])]
    pen.polygon(as_points, fill=inks[0])
    cuts = np.cumsum(generator.uniform(0.6, 1.4, size=23))
    cuts = cuts / cuts[-1]
    for number, (start, stop) in enumerate(zip(cuts[:-1:2], cuts[1::2], strict=False)):
        reach = generator.integers(78, 90)
        left = (back * (1 - start) + face * start)[:reach]
        right = (back * (1 - stop) + face * stop)[:reach]
        tone = inks[[1, 3, 2][number % 3]]
        pen.polygon([(float(x), float(y)) for x, y in np.concatenate([left, right[::-1]])], fill=tone)
        middle = (0.5 * left + 0.5 * right)[generator.integers(5, 25) : reach - 6]
        pen.line([(float(x), float(y)) for x, y in middle], fill=inks[0] if number % 3 else key, width=3)
    pen.line(as_points, fill=key, width=5, joint="curve")
    carve_foam(pen, generator, back[48:], min(width, height))


def paint_woodcut(generator: np.random.Generator) -> Image.Image:
    """Flat inks in few colours from separate blocks, with wood grain and hatched water."""
    _, down = unit_grid()
    sky = gradient(down, [(0.0, "24456f"), (0.1, "5c86a0"), (0.26, "efe1c0"), (0.42, "f0c9a0"), (0.55, "e8a583")])
    image = Image.fromarray((sky * 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.ellipse((590, 120, 850, 380), fill=as_bytes(colour("c9382b")))
    cream, key, blue = (as_bytes(colour(code)) for code in ("f3e6c8", "142748", "2f6ea5"))
    for x, y, length in [
        (520, 330, 330),
        (610, 300, 240),
        (660, 356, 330),
        (40, 250, 210),
        (90, 276, 240),
        (700, 190, 260),
    ]:
        pen.rounded_rectangle((x, y, x + length, y + 15), radius=8, fill=cream)
    for row, (level, swell) in enumerate([(520, 12), (580, 18), (655, 24), (745, 30), (850, 36)]):
        ticks = np.linspace(-20, CANVAS + 20, 160)
        crest = level + swell * np.abs(np.sin(ticks / (46 + 18 * row) + 1.9 * row)) ** 0.7
        body = [(float(x), float(y)) for x, y in zip(ticks, crest, strict=True)]
        tone = as_bytes(colour(["9fc0c4", "7aa9bd", "4f8bb0", "2f6ea5", "1f4f86"][row]))
        pen.polygon([*body, (CANVAS + 20, CANVAS), (-20, CANVAS)], fill=tone)
        for cut in range(1, 7):
            shift = cut * (7 + 3 * row)
            for start in range(0, 160, 10):
                stop = start + int(generator.integers(3, 11))
                line = [(x, y + shift) for x, y in body[start : stop + 1]]
                if len(line) > 1 and generator.random() > 0.12 * cut:
                    pen.line(line, fill=cream if (cut + row) % 3 == 0 else (key if cut % 2 else blue), width=3)
        pen.line(body, fill=key, width=4)
        pen.line([(x, y - 6) for x, y in body], fill=cream, width=5)
        if row == 1:
            carve_wave(pen, generator, (600, 640), 330, 230)
        if row == 2:
            carve_wave(pen, generator, (-90, 850), 660, 690)
        if row == 3:
            carve_wave(pen, generator, (560, 930), 430, 300)
        if row == 4:
            carve_wave(pen, generator, (120, 1010), 330, 200)
    picture = np.asarray(image, dtype=np.float64) / 255.0
    grain = np.sin(70.0 * down + 3.0 * noise(generator, 5, 1, octaves=3)) + 0.5 * noise(generator, 240, 5, octaves=2)
    mottle = paper_grain(generator)
    starved = soft_step(mottle + 0.6 * grain - 2.7, 0.8)  # the ink misses some of the paper
    picture = picture * (1.0 + 0.028 * grain + 0.02 * mottle)[..., None]
    return finish(cover(picture, colour("f0e3c6") * np.ones(3), 0.4 * starved))
