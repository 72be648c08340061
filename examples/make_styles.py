"""Paint the example style pictures.

Every picture is computed from scratch with numpy and pillow: nothing is copied from an existing painting. The six
manners are an impasto oil painting, a pointillist seaside, a stained glass window, an ink wash on rice paper, a colour
woodcut and a hatched drawing in charcoal and red chalk. All random choices are seeded, so a run gives the same
pictures each time:

    python examples/make_styles.py --output examples/styles

Each painter works on a canvas of twice the final size, which is reduced at the end to smooth the edges. Colours are
float arrays in 0..1, positions are in canvas pixels unless a name says ``across`` or ``down`` (both run from 0 to 1).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 512
CANVAS = 2 * SIZE
JPEG_QUALITY = 92

Colour = tuple[float, float, float]


# ---------------------------------------------------------------------------------------------------------------------
# Tools shared by the painters
# ---------------------------------------------------------------------------------------------------------------------


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


def finish(picture: np.ndarray) -> Image.Image:
    """Reduce the canvas to the final size."""
    pixels = (np.clip(picture, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


# ---------------------------------------------------------------------------------------------------------------------
# Impasto oil painting: dusk over a ploughed field
# ---------------------------------------------------------------------------------------------------------------------


DUSK_SUN = (0.66, 0.47)


def dusk_sky(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of a whirling sky around a low sun and the direction in which each place is brushed."""
    across, down = unit_grid()
    sun_across, sun_down = DUSK_SUN
    # The sky follows the level lines of a stream function with a few whirls in it.
    stream = 1.3 * down + 0.05 * noise(generator, 2, 3, octaves=2)
    for whirl_across, whirl_down, radius, force in [
        (0.3, 0.2, 0.16, 0.55),
        (0.8, 0.16, 0.12, -0.4),
        (0.55, 0.36, 0.09, 0.25),
    ]:
        distance = ((across - whirl_across) ** 2 + 1.4 * (down - whirl_down) ** 2) / radius**2
        stream += force * np.exp(-distance)
    slope_down, slope_across = np.gradient(stream)
    angle = np.arctan2(-slope_across, slope_down)
    height = down + 0.05 * np.sin(stream * 34.0) + 0.06 * noise(generator, 3, 2, octaves=3)
    sky_stops = [
        (0.0, "14224f"),
        (0.18, "2b4a94"),
        (0.3, "6d6bb5"),
        (0.4, "d0748c"),
        (0.47, "f3934a"),
        (0.56, "ffd873"),
    ]
    picture = gradient(height, sky_stops)
    picture = cover(picture, colour("9fc3d8"), 0.7 * soft_step(np.sin(stream * 34.0) - 0.55, 0.5) * (down < 0.4))
    distance = np.hypot(across - sun_across, down - sun_down)
    picture = cover(picture, colour("ffc24d"), 0.9 * np.exp(-((distance / 0.15) ** 2)))
    picture = cover(picture, colour("fff3b8"), soft_step(0.056 - distance, 0.01))
    glow_ring = np.exp(-((distance / 0.22) ** 2)) > 0.25
    return picture, np.where(glow_ring, np.arctan2(across - sun_across, -(down - sun_down)), angle)


def dusk_scene(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of the dusk landscape and the direction in which each place is brushed."""
    across, down = unit_grid()
    picture, angle = dusk_sky(generator)
    for base, spread, cells, code, lit in [(0.53, 0.05, 3, "56508f", "c9708a"), (0.585, 0.035, 2, "2d3769", "8c4f78")]:
        ridge = base + spread * ridge_line(generator, cells, octaves=4)
        mask = soft_step(down - ridge[None, :], 0.006)
        shade = gradient(np.clip((down - ridge[None, :]) / 0.1, 0, 1), [(0.0, lit), (0.35, code), (1.0, code)])
        picture = cover(picture, shade, mask)
        angle = np.where(mask > 0.5, np.arctan(np.gradient(ridge) * CANVAS)[None, :] + 0.25, angle)

    # Furrows run towards a vanishing point under the sun.
    depth, beside = np.maximum(down - 0.6, 1e-4), across - DUSK_SUN[0]
    furrow = beside / (depth + 0.05)
    mask = soft_step(down - 0.625 - 0.01 * np.sin(across * 9.0), 0.006)
    stripes = [(-1.0, "3a2a55"), (-0.4, "7b4a35"), (0.1, "c9862f"), (0.6, "f1bd4a"), (1.0, "8f9a3d")]
    field = gradient(np.sin(furrow * 9.0) + 0.25 * noise(generator, 6, 6), stripes)
    field = cover(field, colour("ffb65a"), 0.6 * np.exp(-((beside / (0.08 + depth)) ** 2)) * (depth < 0.3))
    picture = cover(picture, field * (1.05 - 0.5 * depth[..., None]), mask)
    angle = np.where(mask > 0.5, np.arctan2(depth + 0.05, beside), angle)

    for place, foot, top, width in [
        (0.13, 0.76, 0.2, 0.043),
        (0.225, 0.71, 0.36, 0.031),
        (0.045, 0.7, 0.42, 0.03),
        (0.3, 0.67, 0.46, 0.02),
    ]:
        rise = np.clip((foot - down) / (foot - top), 0.0, 1.0)
        wobble = 0.007 * np.sin(down * 46.0 + place * 90.0)
        outline = width * np.sqrt(np.clip(np.sin(np.pi * rise**0.75), 0.0, 1.0))
        mask = soft_step(outline - np.abs(across - place - wobble), 0.005) * (down < foot) * (down > top)
        leaves = gradient(
            (across - place - wobble) / width, [(-1.0, "0d2430"), (0.0, "17473f"), (0.6, "5c6b2c"), (1.0, "d98a3a")]
        )
        picture = cover(picture, leaves, mask)
        angle = np.where(mask > 0.5, np.pi / 2 + 0.5 * np.cos(down * 46.0 + place * 90.0), angle)
    return picture, angle


def brush_paths(angle: np.ndarray, starts: np.ndarray, lengths: np.ndarray, steps: int) -> np.ndarray:
    """Trace brush strokes through the direction field; returns (strokes, steps + 1, 2) positions."""
    paths = [starts]
    heading = None
    for _ in range(steps):
        places = np.clip(paths[-1], 0, CANVAS - 1).astype(int)
        turn = angle[places[:, 1], places[:, 0]]
        direction = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        if heading is not None:
            direction *= np.where((direction * heading).sum(axis=1) < 0, -1.0, 1.0)[:, None]
            direction = 0.5 * direction + 0.5 * heading
        heading = direction
        paths.append(paths[-1] + direction * lengths[:, None] / steps)
    return np.stack(paths, axis=1)


def paint_impasto(generator: np.random.Generator) -> Image.Image:
    """Thick oil strokes, laid coarse to fine along a swirling field, each with its own bristles."""
    scene, angle = dusk_scene(generator)
    image = Image.new("RGB", (CANVAS, CANVAS), as_bytes(colour("5a3a2c")))
    relief = Image.new("L", (CANVAS, CANVAS), 90)
    pen, relief_pen = ImageDraw.Draw(image), ImageDraw.Draw(relief)
    for count, length, width, bristles, jitter in [
        (2600, 150.0, 40.0, 15, 0.07),
        (6500, 95.0, 22.0, 9, 0.085),
        (9000, 58.0, 12.0, 6, 0.075),
    ]:
        starts = generator.uniform(-20.0, CANVAS + 20.0, size=(count, 2))
        lengths = length * generator.uniform(0.7, 1.2, size=count)
        paths = brush_paths(angle, starts, lengths, steps=7)
        tangents = np.gradient(paths, axis=1)
        normals = np.stack([-tangents[..., 1], tangents[..., 0]], axis=-1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
        middles = np.clip(paths[:, 3], 0, CANVAS - 1).astype(int)
        # A stroke has one load of paint: a lighter or darker, warmer or cooler version of the colour below it.
        loads = scene[middles[:, 1], middles[:, 0]]
        loads = loads * (1.0 + generator.normal(scale=1.3 * jitter, size=(count, 1)))
        loads = loads + generator.normal(scale=0.5 * jitter, size=(count, 3))
        taper = width * np.array([0.55, 0.9, 1.0, 1.0, 1.0, 0.95, 0.85, 0.6])
        for path, normal, load in zip(paths, normals, loads, strict=True):
            thickness = generator.integers(90, 190)
            for offset in np.linspace(-0.5, 0.5, bristles) + generator.normal(scale=0.02, size=bristles):
                first, last = generator.integers(0, 2), 8 - generator.integers(0, 3)
                line = (path + normal * (taper * offset)[:, None])[first:last]
                points = [(float(x), float(y)) for x, y in line]
                tint = load * (1.0 + generator.normal(scale=0.06)) + generator.normal(scale=0.012, size=3)
                bristle_width = int(width / bristles + 2)
                pen.line(points, fill=as_bytes(tint), width=bristle_width)
                ridge = thickness + 45.0 * abs(offset) * 2.0 + generator.normal(scale=16.0)
                relief_pen.line(points, fill=int(np.clip(ridge, 0, 255)), width=bristle_width)
    smooth = blur(np.asarray(relief, dtype=np.float64) / 255.0, 1.3)
    picture = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64) / 255.0
    return finish(raking_light(picture, smooth, 2.3))


# ---------------------------------------------------------------------------------------------------------------------
# Pointillism: boats off a beach
# ---------------------------------------------------------------------------------------------------------------------


def add_boats(picture: np.ndarray) -> np.ndarray:
    """Set sailing boats and their reflections on the water."""
    across, down = unit_grid()
    for place, water, size, sail in [
        (0.36, 0.53, 0.17, "fffaf0"),
        (0.52, 0.46, 0.075, "f28c4a"),
        (0.6, 0.445, 0.045, "fff4e0"),
    ]:
        rise = np.clip((water - down) / size, 0.0, 1.0)
        on_sail = (down < water) * (down > water - size)
        main = on_sail * (across > place) * (across < place + 0.46 * size * (1.0 - rise) ** 0.8)
        jib = on_sail * (across < place - 0.02 * size) * (across > place - 0.33 * size * (1.0 - rise))
        picture = cover(picture, colour(sail), main)
        picture = cover(picture, 0.86 * colour(sail) * np.array([0.92, 0.95, 1.05]), jib)
        hull = np.abs(across - place - 0.04 * size) < 0.42 * size - 1.2 * np.abs(down - water - 0.03 * size)
        picture = cover(picture, colour("8c2f39"), hull * (down > water) * (down < water + 0.1 * size))
        mirror = np.abs(across - place - 0.01 * np.sin(down * 260.0)) < 0.3 * size
        picture = cover(
            picture, colour(sail), 0.55 * mirror * (down > water + 0.1 * size) * (down < water + 0.8 * size)
        )
    return picture


def add_pine(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Frame the bay with a leaning pine on the left."""
    across, down = unit_grid()
    trunk = np.abs(across - 0.1 - 0.07 * np.sin((1.0 - down) * 2.6)) < 0.016 + 0.012 * down**3
    picture = cover(picture, gradient(across, [(0.08, "4a2f5c"), (0.2, "c4703c")]), trunk * (down > 0.2))
    for leaf_across, leaf_down, radius in [
        (0.12, 0.14, 0.17),
        (0.3, 0.1, 0.12),
        (0.02, 0.26, 0.12),
        (0.24, 0.22, 0.09),
        (0.42, 0.05, 0.08),
    ]:
        distance = np.hypot(across - leaf_across, 1.5 * (down - leaf_down))
        distance += 0.022 * noise(generator, 18, 14, octaves=2)
        leaves = gradient(
            (down - leaf_down) / radius, [(-0.6, "b5c94a"), (-0.1, "4f9a54"), (0.3, "1f6a5e"), (0.6, "2d3f7c")]
        )
        picture = cover(picture, leaves, soft_step(radius - distance, 0.006))
    return picture


def seaside_scene(generator: np.random.Generator) -> np.ndarray:
    """Return the colours of a bright bay with a headland, boats and a pine in the foreground."""
    across, down = unit_grid()
    clouds = soft_step(noise(generator, 5, 2, octaves=4) - 0.5, 1.6)
    picture = gradient(down, [(0.0, "5b9bd8"), (0.2, "9ccbe8"), (0.36, "ffe2b8"), (0.42, "ffcf9f")])
    picture = cover(picture, colour("fff1e0"), 0.85 * clouds * (down < 0.4))
    ripples = noise(generator, 60, 7, octaves=2)
    sea = gradient(down + 0.02 * ripples, [(0.42, "2f62b0"), (0.5, "2d86c4"), (0.62, "46b5b5"), (0.74, "a6dcc2")])
    picture = cover(picture, sea, soft_step(down - 0.42, 0.003))
    glitter = np.exp(-(((across - 0.62) / 0.09) ** 2)) * (down > 0.425) * (ripples > 0.1)
    picture = cover(picture, colour("ffe9a8"), 0.85 * glitter)

    headland = 0.42 - 0.13 * np.clip((across - 0.68) / 0.3, 0, 1) ** 0.6 - 0.012 * ridge_line(generator, 9)[None, :]
    mask = soft_step(down - headland, 0.006) * (down < 0.435) * (across > 0.67)
    picture = cover(picture, gradient(down - headland, [(0.0, "7aa35a"), (0.05, "8a76b8"), (0.13, "5a4f95")]), mask)

    picture = add_boats(picture)
    shore = 0.9 - 0.2 * across**1.5 + 0.015 * np.sin(across * 11.0)
    foam = np.abs(down - shore + 0.012) < 0.013 + 0.005 * ripples
    picture = cover(picture, colour("fffdf2"), foam)
    sand = gradient(down - shore, [(0.0, "d9b27c"), (0.06, "f6d596"), (0.2, "eebd78"), (0.3, "cf9a80")])
    picture = cover(picture, sand, soft_step(down - shore, 0.004))

    picture = add_pine(picture, generator)
    shadow = np.hypot(across - 0.25, 4.0 * (down - 0.965)) < 0.22 + 0.02 * noise(generator, 14, 14)
    return cover(picture, colour("7c6bb0"), 0.75 * shadow * (down > shore))


def divide_colours(generator: np.random.Generator, wanted: np.ndarray) -> np.ndarray:
    """Break each colour into purer neighbours that mix back to it in the eye."""
    grey = wanted.mean(axis=1, keepdims=True)
    pure = grey + 1.5 * (wanted - grey)
    pushes = np.array(
        [[0.16, 0.05, -0.16], [-0.14, 0.0, 0.17], [0.0, 0.12, -0.05], [0.13, -0.09, 0.05], [0.0, 0.0, 0.0]]
    )
    dots = pure + pushes[generator.integers(0, len(pushes), size=len(wanted))]
    complement = generator.random((len(wanted), 1)) < 0.07
    dots = np.where(complement, 1.15 * grey - 0.9 * (wanted - grey), dots)
    return np.clip(dots + generator.normal(scale=0.05, size=(len(wanted), 1)), 0.03, 1.0)


def paint_pointillism(generator: np.random.Generator) -> Image.Image:
    """Dots of divided colour over a pale ground, large ones first."""
    scene = seaside_scene(generator)
    image = Image.new("RGB", (CANVAS, CANVAS), as_bytes(colour("efe2c4")))
    pen = ImageDraw.Draw(image)
    for spacing, radius, skip in [(15.0, 10.5, 0.0), (12.0, 6.6, 0.1), (10.5, 4.8, 0.25)]:
        ticks = np.arange(-spacing, CANVAS + spacing, spacing)
        places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        places = places + generator.normal(scale=0.36 * spacing, size=places.shape)
        places = places[generator.random(len(places)) >= skip]
        generator.shuffle(places)
        looked_up = np.clip(places, 0, CANVAS - 1).astype(int)
        dots = divide_colours(generator, scene[looked_up[:, 1], looked_up[:, 0]])
        sizes = radius * generator.uniform(0.75, 1.2, size=(len(places), 2))
        for (x, y), (wide, high), dot in zip(places, sizes, dots, strict=True):
            pen.ellipse((x - wide, y - high, x + wide, y + high), fill=as_bytes(dot))
    picture = np.asarray(image, dtype=np.float64) / 255.0
    bumps = blur(picture.mean(axis=2), 2.0) + 0.02 * canvas_weave()
    return finish(raking_light(picture, bumps, 0.5))


# ---------------------------------------------------------------------------------------------------------------------
# Stained glass: sun over a river valley
# ---------------------------------------------------------------------------------------------------------------------


def glass_design() -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the region at each pixel and the colour wanted there."""
    across, down = unit_grid()
    sun_across, sun_down = 0.42, 0.36
    distance = np.hypot(across - sun_across, down - sun_down)
    turn = np.arctan2(down - sun_down, across - sun_across)
    ray = np.floor((turn / (2 * np.pi) + 0.5) * 20.0).astype(int)
    ring = np.digitize(distance + 0.015 * (ray % 2), [0.085, 0.155, 0.25, 0.345, 0.52])
    rings = [
        ("fff1a0", "ffe27a"),
        ("ffc532", "ff9f1c"),
        ("f9641f", "ff9a3c"),
        ("d22f4d", "8f2f8a"),
        ("2d4fc0", "5b37a8"),
        ("12308a", "1c6fc4"),
    ]
    palette = np.array([[colour(even), colour(odd)] for even, odd in rings])
    region = ring * 30 + np.where((ring > 0) & (ring < 4), ray, 0)
    picture = palette[ring, ray % 2]
    layers = [
        (0.6 - 0.13 * np.exp(-(((across - 0.82) / 0.16) ** 2)), "5a3fa0"),
        (0.66 - 0.1 * np.exp(-(((across - 0.1) / 0.22) ** 2)), "1f7a8c"),
        (0.74 - 0.06 * np.sin(across * 5.2 + 0.6), "2f9e5a"),
        (0.83 - 0.05 * np.sin(across * 6.5 + 2.8), "a9c93a"),
        (0.93 + 0.03 * np.sin(across * 7.0), "146b3f"),
    ]
    for number, (edge, code) in enumerate(layers, start=1):
        region = np.where(down > edge, 1000 * number, region)
        picture = np.where((down > edge)[..., None], colour(code), picture)
    bend = 0.5 + 0.13 * np.sin((down - 0.62) * 13.0) * (1.3 - down)
    river = (np.abs(across - bend) < 0.02 + 0.5 * np.clip(down - 0.64, 0, 1) ** 1.4) & (down > 0.66)
    region = np.where(river, 7000 + (across > bend).astype(int), region)
    picture = np.where(
        river[..., None], np.where((across > bend)[..., None], colour("3aa7e0"), colour("8fe0f0")), picture
    )
    trunk = (
        (np.abs(across - 0.86 + 0.03 * np.sin(down * 8.0)) < 0.018 + 0.09 * np.clip(down - 0.8, 0, 1))
        & (down > 0.4)
        & (down < 0.95)
    )
    region, picture = np.where(trunk, 8000, region), np.where(trunk[..., None], colour("6b3218"), picture)
    crowns = [
        (0.86, 0.3, 0.12, "2fae4e"),
        (0.76, 0.41, 0.085, "86c232"),
        (0.95, 0.42, 0.09, "0f8a5f"),
        (0.87, 0.47, 0.06, "c8d832"),
    ]
    for number, (place, height, radius, code) in enumerate(crowns):
        inside = np.hypot(across - place, down - height) < radius
        region, picture = np.where(inside, 9000 + number, region), np.where(inside[..., None], colour(code), picture)
    return region, picture


def shards(generator: np.random.Generator, count: int) -> np.ndarray:
    """Return for each pixel the number of the nearest of ``count`` evenly scattered points."""
    side = int(np.ceil(np.sqrt(count)))
    points = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) + 0.5) / side
    points = (points + generator.normal(scale=0.27 / side, size=points.shape)) * CANVAS
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    nearest, closest = np.zeros((CANVAS, CANVAS), dtype=int), np.full((CANVAS, CANVAS), np.inf, dtype=np.float32)
    for number, (x, y) in enumerate(points):
        distance = (columns - np.float32(x)) ** 2 + (rows - np.float32(y)) ** 2
        nearest[distance < closest] = number
        np.minimum(closest, distance, out=closest)
    return nearest


def paint_stained_glass(generator: np.random.Generator) -> Image.Image:
    """Pieces of uneven coloured glass held in dark leading."""
    region, picture = glass_design()
    shard = shards(generator, 120)
    # The sun and its rays keep their shape, other regions are cut into pieces by the scattered points.
    piece_codes = region * 1000 + np.where(region < 120, 0, shard)
    _, piece = np.unique(piece_codes, return_inverse=True)
    piece = piece.reshape(CANVAS, CANVAS)
    count = piece.max() + 1
    area = np.bincount(piece.ravel())

    across, down = unit_grid()
    brightness = generator.normal(1.0, 0.17, size=count)[piece]
    tint = generator.normal(0.0, 0.055, size=(count, 3))[piece]
    turn = generator.uniform(0, 2 * np.pi, size=count)[piece]
    middle_across = (np.bincount(piece.ravel(), across.ravel()) / area)[piece]
    middle_down = (np.bincount(piece.ravel(), down.ravel()) / area)[piece]
    slope = 3.2 * (np.cos(turn) * (across - middle_across) + np.sin(turn) * (down - middle_down))
    streaks = 0.05 * noise(generator, 8, 40, octaves=3) + 0.045 * noise(generator, 30, 30, octaves=3)
    picture = np.stack(
        [np.bincount(piece.ravel(), picture[..., channel].ravel()) / area for channel in range(3)], axis=1
    )[piece]
    picture = (picture + tint) * (brightness + slope + streaks)[..., None]

    edge = boundaries(piece)
    lead = soft_step(blur(edge, 3.2) - 0.062, 0.03)
    # Light spills a little over the leading; the rims of the pieces are darker.
    rim = blur(lead, 9.0)
    picture = picture * (1.2 - 0.5 * rim)[..., None]
    metal = np.repeat((0.1 + 0.02 * noise(generator, 60, 60, octaves=2))[..., None], 3, axis=2) * np.array(
        [0.9, 0.95, 1.1]
    )
    lead_relief = blur(lead, 3.0)
    picture = cover(picture, np.clip(metal, 0.04, 0.2), lead)
    slope_down, slope_across = np.gradient(lead_relief)
    return finish(picture + (np.clip(slope_down + slope_across, 0.0, 0.2) * 1.2 * lead)[..., None])


# ---------------------------------------------------------------------------------------------------------------------
# Ink wash: mountains in mist on rice paper
# ---------------------------------------------------------------------------------------------------------------------


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
    for (start, stop), width in zip(zip(trunk[:-1], trunk[1:], strict=True), [6, 5, 5, 4, 3, 3], strict=True):
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


# ---------------------------------------------------------------------------------------------------------------------
# Colour woodcut: breaking waves under a red sun
# ---------------------------------------------------------------------------------------------------------------------

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
    across, down = unit_grid()
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


# ---------------------------------------------------------------------------------------------------------------------
# Hatched drawing: a still life in charcoal and red chalk
# ---------------------------------------------------------------------------------------------------------------------


def turned_vessel(middle: float, levels: Sequence[float], radii: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return mask and shading of a vessel turned on a wheel, given its radius at several levels (top to bottom)."""
    across, down = unit_grid()
    curve = smooth_curve(list(zip(levels, radii, strict=True)), samples=400)
    radius = np.interp(down, curve[:, 0], curve[:, 1])
    sag = 0.16 * np.sqrt(np.clip(1.0 - ((across - middle) / np.maximum(radius, 1e-3)) ** 2, 0.0, 1.0)) * radius
    mask = (np.abs(across - middle) < radius) & (down > levels[0]) & (down < levels[-1] + sag - 0.01)
    side = np.clip((across - middle) / np.maximum(radius, 1e-3), -1.0, 1.0)
    slope = np.gradient(radius, axis=0) * CANVAS
    light = -0.68 * side + 0.66 * np.sqrt(1.0 - side**2) + 0.35 * np.clip(slope, -1.0, 1.0) * -1.0
    tone = 0.78 - 0.72 * light + 0.13 * np.exp(-(((side - 0.92) / 0.12) ** 2)) * -2.0
    return mask, tone


def still_life() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tone (0 paper, 1 darkest), the share of red chalk and a number per object."""
    across, down = unit_grid()
    wall = 0.16 + 0.4 * across**1.6 * (1.0 - 0.5 * down) + 0.08 * np.sin(across * 21.0 + 3.0 * down) * across
    table = 0.1 + 0.18 * np.clip(down - 0.72, 0, 1)
    tone = np.where(down < 0.66, wall, table)
    label = np.where(down < 0.66, 1, 2)
    red = np.zeros((CANVAS, CANVAS))
    for middle, level, wide, high in [
        (0.5, 0.79, 0.24, 0.042),
        (0.74, 0.8, 0.26, 0.05),
        (0.37, 0.885, 0.16, 0.035),
        (0.6, 0.92, 0.16, 0.032),
    ]:
        shadow = np.exp(-((((across - middle - 0.04) / wide) ** 2 + ((down - level) / high) ** 2) ** 2))
        tone = tone + 0.62 * shadow * (down > 0.66)
    bottle = turned_vessel(
        0.4, [0.1, 0.125, 0.15, 0.3, 0.36, 0.42, 0.5, 0.77], [0.034, 0.036, 0.029, 0.031, 0.05, 0.096, 0.108, 0.104]
    )
    jug = turned_vessel(0.68, [0.34, 0.38, 0.44, 0.54, 0.64, 0.74, 0.79], [0.102, 0.082, 0.078, 0.14, 0.168, 0.13, 0.1])
    ring = np.hypot((across - 0.845) / 0.85, down - 0.515)
    handle = (np.abs(ring - 0.095) < 0.022) & (across > 0.79)
    tone, label = np.where(handle, 0.15 + 22.0 * np.abs(ring - 0.09), tone), np.where(handle, 3, label)
    for number, ((mask, shade), base) in enumerate([(bottle, 0.2), (jug, 0.0)], start=4):
        tone, label = np.where(mask, shade + base, tone), np.where(mask, number, label)
    mouth = ((across - 0.68) / 0.1) ** 2 + ((down - 0.345) / 0.026) ** 2 < 1.0
    tone, label = np.where(mouth, 0.95 - 0.5 * (across - 0.58) / 0.2, tone), np.where(mouth, 6, label)
    gleam = np.exp(-(((across - 0.345) / 0.008) ** 2)) * (down > 0.46) * (down < 0.7)
    tone = tone - 0.8 * gleam * (label == 4)
    for number, (middle, level, radius) in enumerate(
        [(0.26, 0.8, 0.09), (0.53, 0.845, 0.083), (0.15, 0.865, 0.078)], start=7
    ):
        side, height = (across - middle) / radius, (down - level) / (0.94 * radius)
        inside = side**2 + height**2 < 1.0
        front = np.sqrt(np.clip(1.0 - side**2 - height**2, 0.0, 1.0))
        light = -0.55 * side - 0.6 * height + 0.58 * front
        dimple = np.exp(-((side / 0.35) ** 2 + ((height + 0.78) / 0.14) ** 2))
        tone = np.where(inside, 0.8 - 0.78 * light + 0.4 * dimple, tone)
        label, red = np.where(inside, number, label), np.where(inside, 1.0, red)
    return np.clip(tone, 0.0, 1.0), red, label


def hatch(
    generator: np.random.Generator, tone: np.ndarray, angle: float, spacing: float, threshold: float
) -> np.ndarray:
    """Draw one direction of hatching: many slightly curved lines that break off where the tone is light."""
    plane = Image.new("L", (CANVAS, CANVAS), 0)
    pen = ImageDraw.Draw(plane)
    along, beside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    reach, step = 0.75 * CANVAS, 9.0
    for offset in np.arange(-reach, reach, spacing):
        ticks = np.arange(-reach, reach, step) + generator.uniform(0, step)
        drift = generator.normal(scale=0.28 * spacing) + np.cumsum(generator.normal(scale=0.28, size=len(ticks)))
        points = CANVAS / 2 + ticks[:, None] * along + (offset + drift)[:, None] * beside
        inside = ((points >= 0) & (points < CANVAS)).all(axis=1)
        places = np.clip(points, 0, CANVAS - 1).astype(int)
        wanted = np.where(inside, tone[places[:, 1], places[:, 0]], 0.0)
        limit = threshold + generator.normal(scale=0.045)
        pressure = np.clip((wanted - limit) * 2.4 + 0.3, 0.0, 1.0) * (wanted > limit)
        lifted = generator.random(len(ticks)) < 0.05
        for number in np.flatnonzero((pressure[:-1] > 0) & ~lifted[:-1]):
            start, stop = points[number], points[number + 1] + 0.3 * step * along
            force = float(np.clip(pressure[number] + generator.normal(scale=0.05), 0.1, 1.0))
            pen.line([*start, *stop], fill=int(90 + 165 * force), width=2 + int(force > 0.6))
    return np.asarray(plane, dtype=np.float64) / 255.0


def sketch_outlines(generator: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """Go round every object several times with a loose hand."""
    edge = boundaries(label)
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS]
    total = np.zeros((CANVAS, CANVAS))
    for weight in [1.0, 0.6, 0.45]:
        line = np.asarray(
            Image.fromarray((edge * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3)), dtype=np.float64
        )
        shift_down, shift_across = (2.2 * noise(generator, 7, 7, octaves=2) for _ in range(2))
        moved_rows = np.clip(rows + shift_down, 0, CANVAS - 1).astype(int)
        moved_columns = np.clip(columns + shift_across, 0, CANVAS - 1).astype(int)
        pressure = np.clip(0.75 + 0.4 * noise(generator, 10, 10, octaves=2), 0.0, 1.0)
        total = np.maximum(total, weight * pressure * line[moved_rows, moved_columns] / 255.0)
    return total


def paint_hatching(generator: np.random.Generator) -> Image.Image:
    """Crossed charcoal lines over smudged tone on cream paper, with red chalk for the fruit."""
    tone, red, label = still_life()
    lines = np.zeros((CANVAS, CANVAS))
    for angle, spacing, threshold in [
        (-0.85, 9.0, 0.17),
        (-0.62, 11.0, 0.36),
        (0.7, 10.0, 0.5),
        (0.08, 11.0, 0.66),
        (1.5, 10.0, 0.8),
    ]:
        lines = np.maximum(lines, hatch(generator, tone, angle, spacing, threshold))
    lines = np.maximum(lines, sketch_outlines(generator, label))
    tooth = paper_grain(generator)
    smudge = 0.26 * blur(tone, 7.0) * (1.0 + 0.12 * noise(generator, 12, 12))
    caught = np.clip(0.78 + 0.3 * tooth, 0.12, 1.0)  # chalk stays on the high points of the paper
    chalk = np.clip(lines * caught * 0.92 + smudge * np.clip(0.8 + 0.35 * tooth, 0.0, 1.5), 0.0, 1.0)
    paper = colour("efe3c8") * (1.0 + 0.022 * tooth + 0.015 * noise(generator, 3, 3))[..., None]
    chalk_colour = cover(np.ones_like(paper) * colour("23201f"), colour("9c3b22") * np.ones(3), blur(red, 2.0))
    picture = cover(paper, chalk_colour, chalk)
    across, down = unit_grid()
    highlight = np.exp(-(((across - 0.62) / 0.016) ** 2 + ((down - 0.565) / 0.04) ** 2))
    for middle, level in [(0.232, 0.765), (0.505, 0.812), (0.125, 0.835)]:
        highlight += np.exp(-(((across - middle) / 0.014) ** 2 + ((down - level) / 0.011) ** 2))
    return finish(cover(picture, colour("fffaf0") * np.ones(3), 0.85 * highlight * caught))


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
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "styles", help="folder to write to")
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
