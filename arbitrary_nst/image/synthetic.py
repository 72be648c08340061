"""A photo made by formulas, for where no photo is at hand."""

import torch
from jaxtyping import Float
from torch import Tensor


def synthetic_photo(size: int) -> Float[Tensor, "1 3 H W"]:
    """A computed photo: sky, sun, hills, water, a ball and its shadow, a field, a wall."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")

    def colour(*rgb: float) -> Tensor:
        return torch.tensor(rgb).view(3, 1, 1)

    def within(distance: Tensor) -> Tensor:
        """1 where a distance is negative, with an edge of a pixel."""
        return (0.5 - distance * size).clamp(0, 1)

    sun = ((x - 0.7).square() + (y - 0.24).square()).sqrt()
    picture = colour(0.25, 0.48, 0.82) + (y / 0.5).clamp(max=1) * colour(0.65, 0.3, -0.15)
    picture = picture + (-sun / 0.15).exp() * colour(0.35, 0.3, 0.1)
    picture = picture.lerp(colour(1, 0.97, 0.8).expand(3, size, size), within(sun - 0.06))
    for index, (height, shade) in enumerate([(0.42, 0.75), (0.48, 0.5), (0.53, 0.3)]):
        hill = height - 0.05 * (5 * x + 2 * index).sin() - 0.02 * (17 * x + 3 * index).sin()
        picture = picture.lerp(shade * colour(0.55, 0.7, 0.75).expand(3, size, size), within(hill - y))
    ripples = 0.06 * (160 * (y - 0.56) / (0.2 + y) + 6 * (9 * x).sin()).sin()
    picture = picture.lerp(colour(0.2, 0.42, 0.55) + ripples + 0.25 * (-(x - 0.7).abs() / 0.08).exp(), within(0.56 - y))
    furrows = 0.12 * (70 * (x - 0.5) / (y - 0.4).clamp(min=0.05)).sin()
    picture = picture.lerp(colour(0.45, 0.5, 0.18) + furrows * colour(1, 0.8, 0.4), within(0.72 + 0.05 * x - y))
    bricks = ((y * 24).frac() < 0.12) | (((x * 10) + ((y * 24).floor() % 2) / 2).frac() < 0.06)
    wall = (0.62 - y).maximum(0.03 - x).maximum(x - 0.24).maximum(y - 0.86)
    picture = picture.lerp(colour(0.62, 0.3, 0.22) + 0.25 * bricks.float(), within(wall))
    shadow = ((x - 0.66).div(0.2).square() + (y - 0.9).div(0.04).square() - 1) * 0.05
    picture = picture * (1 - 0.5 * within(shadow))
    across, down = (x - 0.6) / 0.15, (y - 0.77) / 0.15
    light = (1 - across.square() - down.square()).clamp(min=0).sqrt() * 0.7 + 0.4 * (across - down).clamp(-1, 1) * 0.6
    ball = colour(0.85, 0.2, 0.15) * (0.35 + light) + 0.6 * (light - 0.75).clamp(min=0)
    picture = picture.lerp(ball, within((across.square() + down.square()).sqrt() * 0.15 - 0.15))
    grain = 0.02 * torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    return (picture + grain).clamp(0, 1)[None]
