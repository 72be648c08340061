"""Impasto oil painting: dusk over a ploughed field."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from painting.canvas import (
    CANVAS,
    as_bytes,
    blur,
    colour,
    cover,
    finish,
    gradient,
    noise,
    raking_light,
    ridge_line,
    soft_step,
    unit_grid,
)

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
