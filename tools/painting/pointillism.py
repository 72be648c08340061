"""Pointillism: boats off a beach."""

import numpy as np
from PIL import Image, ImageDraw

from painting.canvas import (
    CANVAS,
    as_bytes,
    blur,
    canvas_weave,
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
