"""Stained glass: sun over a river valley."""

import numpy as np
from PIL import Image

from painting.canvas import (
    CANVAS,
    blur,
    boundaries,
    colour,
    cover,
    finish,
    noise,
    soft_step,
    unit_grid,
)


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
