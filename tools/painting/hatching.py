"""Hatched drawing: a still life in charcoal and red chalk."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from painting.canvas import (
    CANVAS,
    blur,
    boundaries,
    colour,
    cover,
    finish,
    noise,
    paper_grain,
    smooth_curve,
    unit_grid,
)


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
