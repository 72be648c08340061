from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from arbitrary_nst.models import MODELS, CoarseToFine
from arbitrary_nst.models.blocks import TilingSpec, TrunkSpec
from arbitrary_nst.nn.normalization import ConditionalInstanceNorm2d
from arbitrary_nst.nn.octaves import Octave
from arbitrary_nst.stylization.stylizer import Stylizer
from arbitrary_nst.stylization.tiling import (
    FEATHER,
    RunningStatistics,
    fade_in,
    feathered,
    instance_norms,
    mosaic,
    shallow_copy,
    spans,
    stylize_in_tiles,
    widened,
    with_exact_statistics,
    within,
)

OPTIONS = {"single-style": {"styles": ["wave"]}, "multi-style": {"styles": ["wave", "ink"]}}
few = settings(max_examples=50, deadline=None)
sides = st.tuples(st.integers(1, 60), st.integers(4, 30)).map(lambda pair: (8 * pair[0], 8 * pair[1]))


def picture(height: int, width: int) -> torch.Tensor:
    """Smooth, so that a difference of statistics is one of brightness, with a little of every frequency."""
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (0.9 * smooth + 0.1 * torch.rand(1, 3, height, width)).clamp(0, 1)


CODE = CoarseToFine.code_size


@pytest.fixture(scope="module")
def stylizers(light_model):
    """Each model once, when it is first asked for; the norms of untrained tables are spread."""
    made = {"light": Stylizer(deepcopy(light_model), "cpu", "float32")}

    def get(name):
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = MODELS[name](pretrained=False, **OPTIONS.get(name, {}))
            made[name] = Stylizer(model.to(memory_format=torch.channels_last), "cpu", "float32")
        return made[name]

    return get


@pytest.fixture(params=[True, False], ids=["trunk kept", "trunk cut"])
def cache_trunk(request, monkeypatch):
    """Whether there is memory for the maps of a trunk."""
    if not request.param:
        monkeypatch.setattr("arbitrary_nst.stylization.runner.CACHE_MEMORY", 0)
    return request.param


# Geometry


@few
@given(sides)
def test_cores_divide_a_side_at_multiples_and_none_is_longer_than_a_tile(side):
    length, tile = side
    tiles = spans(length, tile, 8)
    edges = [tiles[0].core[0], *(span.core[1] for span in tiles)]
    assert edges == sorted(set(edges))
    assert (edges[0], edges[-1]) == (0, length)
    assert all(edge % 8 == 0 for edge in edges)
    assert all(before.core[1] == after.core[0] for before, after in pairwise(tiles))
    lengths = [span.core[1] - span.core[0] for span in tiles]
    assert max(lengths) <= tile
    assert max(lengths) - min(lengths) <= 8


@few
@given(sides)
def test_neighbours_paint_the_same_strip_at_their_seam_and_nobody_else_does(side):
    length, tile = side
    tiles = spans(length, tile, 8)
    painters = torch.zeros(length, dtype=torch.int)
    for span in tiles:
        painters[slice(*span.painted)] += 1
    assert painters.min() == 1
    assert painters.max() <= 2
    assert int((painters == 2).sum()) == 2 * FEATHER * (len(tiles) - 1)
    for seam in [span.core[0] for span in tiles[1:]]:
        assert (painters[seam - FEATHER : seam + FEATHER] == 2).all()


def test_margins_end_at_the_border():
    assert widened((0, 8), 5, 100) == (0, 13)
    assert widened((90, 100), 5, 100) == (85, 100)


def test_a_place_in_a_map_of_lower_resolution():
    assert within((24, 40), (8, 64)) == slice(16, 32)
    assert within((24, 40), (8, 64), 8) == slice(2, 4)


@pytest.mark.parametrize(("length", "padded"), [(1, 16), (16, 16), (17, 24), (64, 64), (65, 72)])
def test_a_side_is_continued_to_a_multiple(length, padded):
    assert TilingSpec(multiple=8, minimum=16, halo=80, bytes_per_pixel=1).padded(length) == padded


# Feathering


@few
@given(sides, st.integers(0, 99))
def test_feathered_pieces_of_one_line_are_that_line(side, seed):
    length, tile = side
    line = torch.rand(1, 1, 1, length, generator=torch.Generator().manual_seed(seed))
    pieces = (line[..., slice(*span.painted)].clone() for span in spans(length, tile, 8))
    assert_close(torch.cat(list(feathered(pieces, 2 * FEATHER, dim=3)), 3), line, atol=1e-7, rtol=0)


@few
@given(sides)
def test_what_two_tiles_contribute_is_one_together_and_fades_straight(side):
    length, tile = side
    weights = []
    tiles = spans(length, tile, 8)
    for shown in tiles:
        pieces = (torch.full((1, s.painted[1] - s.painted[0]), float(s is shown)) for s in tiles)
        weights.append(torch.cat(list(feathered(pieces, 2 * FEATHER, dim=1)), 1))
    assert torch.equal(torch.cat(weights).sum(0), torch.ones(length))
    assert all((weight.diff().abs() <= 1 / (2 * FEATHER)).all() for weight in weights)


def test_fading_by_hand():
    part = torch.ones(1, 4)
    fade_in(part, torch.zeros(1, 2), dim=1)
    assert torch.equal(part, torch.tensor([[0.25, 0.75, 1.0, 1.0]]))


@few
@given(sides, sides)
def test_a_mosaic_covers_every_pixel_once_and_is_the_picture(down, right):
    (height, tile), (width, _) = down, right
    image = torch.rand(1, 3, height, width)
    result, count = torch.zeros_like(image), torch.zeros(height, width)
    parts = mosaic(
        lambda row, column: image[:, :, slice(*row.painted), slice(*column.painted)].clone(),
        spans(height, tile, 8),
        spans(width, tile, 8),
    )
    for top, left, part in parts:
        place = slice(top, top + part.shape[2]), slice(left, left + part.shape[3])
        result[:, :, place[0], place[1]] = part
        count[place] += 1
    assert (count == 1).all()
    assert_close(result, image, atol=1e-6, rtol=0)


# Statistics


@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 9), st.floats(-50, 50))
def test_statistics_of_parts_are_those_of_the_whole(heights, width, offset):
    whole = offset + torch.randn(1, 4, sum(heights), width)
    running = RunningStatistics()
    for part in whole.split(heights, 2):
        running.add(part)
    mean, variance = running.statistics
    assert running.count == sum(heights) * width
    assert_close(mean, whole.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    assert_close(variance, whole.double().var((0, 2, 3), correction=0).float(), atol=1e-5, rtol=1e-3)


def test_statistics_are_exact_where_a_sum_in_float32_is_not(monkeypatch):
    monkeypatch.setattr("arbitrary_nst.nn.statistics.BAND", 1000)
    features = 30 + torch.randn(1, 2, 200, 100)
    running = RunningStatistics()
    running.add(features)
    expected = features.double().var((0, 2, 3), correction=0)
    assert_close(running.statistics[1].double(), expected, atol=0, rtol=1e-5)


@pytest.mark.parametrize("size", [(135, 201), pytest.param((320, 272), marks=pytest.mark.slow), (1, 300)])
def test_every_norm_counts_every_position_once(stylizers, size, monkeypatch, cache_trunk):
    """Its statistics are those that it sees in the whole picture, continued to a multiple of 8."""
    made = []

    class Noted(RunningStatistics):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr("arbitrary_nst.stylization.tiling.RunningStatistics", Noted)
    stylizer, content, code = stylizers("light"), picture(*size), torch.randn(1, CODE)
    seen = []
    whole = shallow_copy(stylizer.model)
    for norm in instance_norms(whole):
        norm.register_forward_pre_hook(lambda norm, inputs: seen.append(inputs[0]))
    whole(content, code)
    stylizer(content, code, tile=160)
    assert [running.count for running in made] == [features[0, 0].numel() for features in seen]
    for running, features in zip(made, seen, strict=True):
        assert_close(running.statistics[0], features.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)
        assert_close(running.statistics[1], features.var((0, 2, 3), correction=0), atol=1e-4, rtol=1e-3)


def test_a_large_channel_is_normalized_exactly():
    """2048 x 2048 positions: their squares do not fit one float32."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = ConditionalInstanceNorm2d(1)

        def forward(self, features):
            return self.norm(features, torch.ones(1, 1), torch.zeros(1, 1))

    features = 1 + torch.rand(1, 1, 2048, 2048)
    assert with_exact_statistics(Network())(features).double().std().item() == pytest.approx(1, abs=1e-4)


# Whole pictures


@pytest.mark.parametrize(
    ("name", "size", "tile", "cache_trunk"),
    [
        ("light", (320, 272), 160, True),
        pytest.param("light", (320, 272), 160, False, marks=pytest.mark.slow),
        ("light", (231, 303), 160, True),
        pytest.param("light", (231, 303), 160, False, marks=pytest.mark.slow),
        ("light", (40, 300), 64, True),
        ("light", (40, 300), 80, False),
        ("light", (7, 5), 64, True),
        ("light", (7, 5), 64, False),
        ("normalization-network", (40, 300), 96, True),
        ("paper", (48, 321), 96, False),
        ("single-style", (321, 48), 96, False),
        ("multi-style", (48, 321), 96, False),
        ("adain", (48, 321), 96, False),
        ("adain-vgg19", (321, 48), 96, False),
    ],
    indirect=["cache_trunk"],
)
def test_tiles_make_the_picture_that_the_whole_makes(stylizers, name, size, tile, cache_trunk):
    stylizer, content = stylizers(name), picture(*size)
    code = torch.rand(1, stylizer.model.code_size)
    whole = stylizer(content, code, tile=None)
    assert_close(stylizer(content, code, tile=tile), whole, atol=5e-4, rtol=0)
    assert (whole - content).abs().mean() > 1e-2


@pytest.mark.parametrize(
    ("cache_trunk", "halos"),
    [(True, (40, 16)), pytest.param(False, (184, 72), marks=pytest.mark.slow)],
    indirect=["cache_trunk"],
)
def test_a_smaller_halo_would_not_do(stylizers, cache_trunk, halos):
    """The tiles would differ from the whole: the comparison above sees a seam."""
    stylizer, content, code = stylizers("light"), picture(200, 400), torch.randn(1, CODE)
    whole = stylizer(content, code)
    differences = []
    for halo in halos:
        result = torch.empty_like(content)
        for top, left, part in stylize_in_tiles(
            stylizer.model,
            lambda model, view: model(view.content, code, view.guide),
            Octave(content).read,
            (200, 400),
            200,
            TilingSpec(8, 16, halo, 1, TrunkSpec(8, halo, 1)),
            cache_trunk,
        ):
            result[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
        differences.append(float((result - whole).detach().abs().max()))
    assert differences[0] < 1e-4
    assert differences[1] > 10 * differences[0]


def test_the_tiled_model_is_left_as_it_is(stylizers):
    stylizer, content, code = stylizers("light"), picture(150, 150), torch.randn(1, CODE)
    before = stylizer(content, code)
    stylizer(content, code, tile=64)
    assert all(norm.statistics is None for norm in instance_norms(stylizer.model))
    assert torch.equal(stylizer(content, code), before)


def test_a_twin_shares_weights_and_nothing_else(stylizers):
    model = stylizers("light").model
    copy = shallow_copy(model)
    for mine, its in zip(model.state_dict().values(), copy.state_dict().values(), strict=True):
        assert mine.data_ptr() == its.data_ptr()
    assert not set(map(id, model.modules())) & set(map(id, copy.modules()))


def test_a_batch_in_tiles_is_the_stack_of_its_photos(stylizers):
    stylizer, contents, codes = (
        stylizers("light"),
        torch.cat([picture(72, 150)] * 2),
        torch.randn(2, CODE),
    )
    contents[1] = contents[1].flip(-1)
    tiled = stylizer(contents, codes, tile=64)
    assert_close(tiled, stylizer(contents, codes), atol=1e-4, rtol=0)


def test_a_flat_picture_divides_nothing_by_zero(stylizers):
    """Every norm enlarges rounding three hundred times: the pictures differ, but are finite."""
    stylizer, code = stylizers("light"), torch.randn(1, CODE)
    content = torch.full((1, 3, 200, 136), 0.5)
    assert stylizer(content, code, tile=64).isfinite().all()
    assert stylizer(content, code).isfinite().all()
