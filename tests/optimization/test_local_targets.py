"""Comparison place by place: hypercolumns where they should be, the published terms, regions kept apart."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from arbitrary_nst.nn.features import VGGFeatures
from arbitrary_nst.nn.losses import covariance_loss, relaxed_emd_loss, self_similarity_loss
from arbitrary_nst.optimization.local_targets import LocalTargets, Region, at
from arbitrary_nst.optimization.loop import optimize
from arbitrary_nst.optimization.presets import PRESETS, OptimizationConfig, Stage

LAYERS = {"relu1_1": 1.0, "relu2_1": 0.5}
LOCAL = OptimizationConfig(
    style_layers=LAYERS,
    content_weight=0.0,
    gram_weight=0.0,
    canvas="pyramid",
    init="content",
    optimizer="adam",
    learning_rate=1e-2,
    steps=(12,),
    samples=10_000,
    style_samples=10_000,
)
TRANSPORT = replace(LOCAL, self_similarity_weight=4.0, emd_weight=1.0, covariance_weight=0.1, palette_weight=1.0)
NEIGHBORS = replace(LOCAL, neighbor_weight=1.0, split=True)


def blobs(height: int, width: int, seed: int) -> torch.Tensor:
    noise = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0.05, 0.95)


PHOTO, PAINTING = blobs(24, 32, 1), blobs(20, 28, 2)
STAGE = Stage((24, 32), 1)


@pytest.fixture(scope="module")
def features(tiny) -> VGGFeatures:
    return tiny


def targets(features, config, stage=STAGE, picture=PHOTO, styles=(PAINTING,), **options: Any):
    weights = [1 / len(styles)] * len(styles)
    generator = torch.Generator().manual_seed(0)
    return LocalTargets(features, config, stage, PHOTO, styles, weights, picture, generator=generator, **options)


def whole(maps, layers=LAYERS, size=(24, 32)):
    """Hypercolumns of every pixel."""
    columns = [w * F.interpolate(maps[layer], size, mode="bilinear") for layer, w in layers.items()]
    return torch.cat(columns, 1).flatten(2).mT


def hypercolumns(region: Region) -> torch.Tensor:
    assert region.columns is not None
    return region.columns


def test_vectors_at_points_are_those_of_bilinear_interpolation():
    maps = torch.rand(1, 4, 6, 8)
    enlarged = F.interpolate(maps, (24, 32), mode="bilinear")
    rows, columns = torch.tensor([0, 5, 23, 12]), torch.tensor([31, 0, 30, 13])
    found = at(maps, torch.stack([rows, columns], 1) + 0.5, (24, 32))
    assert_close(found[0], enlarged[0][:, rows, columns].T)
    between = at(maps, torch.tensor([[4.0, 4.0]]), (24, 32))  # the middle of four positions
    assert_close(between[0, 0], maps[0, :, :2, :2].mean((1, 2)))


def test_terms_are_the_losses_of_all_places(features):
    """With as many samples as pixels nothing is left to chance."""
    picture = blobs(24, 32, 3)
    found = targets(features, TRANSPORT)(picture, features(picture))
    ours, photo, style = whole(features(picture)), whole(features(PHOTO)), whole(features(PAINTING), size=(20, 28))
    close: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-5}
    assert_close(found["self_similarity"], 4 * self_similarity_loss(ours, photo), **close)
    assert_close(found["emd"], relaxed_emd_loss(ours, style), **close)
    assert_close(found["covariance"], 0.1 * covariance_loss(ours, style), **close)
    colors = relaxed_emd_loss(picture.flatten(2).mT, PAINTING.flatten(2).mT, "euclidean")
    assert_close(found["palette"], colors / 4, **close)


def test_self_similarity_fades_from_scale_to_scale_and_gives_way_to_the_palette(features):
    picture = blobs(24, 32, 3)
    first, last = (
        targets(features, TRANSPORT, replace(STAGE, content_factor=f))(picture, features(picture)) for f in (1, 0.5)
    )
    assert_close(last["self_similarity"], first["self_similarity"] / 2)
    assert_close(last["palette"], 2 * first["palette"])


def test_the_painting_itself_costs_nothing(features):
    """Each place's nearest neighbour is itself where photo, painting and picture are one."""
    config = replace(NEIGHBORS, emd_weight=1.0, covariance_weight=1.0, palette_weight=1.0)
    for stage in (STAGE, replace(STAGE, first=False, split=True)):
        found = targets(features, config, stage, styles=(PHOTO,))(PHOTO, features(PHOTO))
        assert set(found) == {"neighbors", "emd", "covariance", "palette"}
        assert max(found.values()) < 2e-3, found


def test_nearest_neighbors_are_those_of_the_photo_with_means_removed(features):
    local = targets(features, NEIGHBORS)
    (region,) = local.regions
    assert region.points is not None
    assert len(region.points) == 6 * 8
    mean = torch.cat([w * features(PHOTO)[layer].mean((2, 3)) for layer, w in LAYERS.items()], 1)
    columns = torch.cat([w * at(features(PHOTO)[layer], region.points, (24, 32)) for layer, w in LAYERS.items()], 2)
    style = hypercolumns(region)
    cosine = F.normalize(columns - mean[None], dim=2) @ F.normalize(style - style.mean(1, keepdim=True), dim=2).mT
    assert region.nearest is not None
    chosen = F.normalize(style[0] - style[0].mean(0), dim=1)[region.nearest]
    assert_close((F.normalize(columns - mean[None], dim=2)[0] * chosen).sum(1), cosine[0].max(1).values)


def test_alpha_blends_what_is_painted_so_far_into_what_is_searched(features):
    picture = blobs(24, 32, 3)
    later = replace(STAGE, first=False)
    local = targets(features, replace(NEIGHBORS, alpha=1.0), later, picture)
    assert torch.equal(local._searched(PHOTO, picture), PHOTO)
    assert torch.equal(targets(features, NEIGHBORS, STAGE, picture)._searched(PHOTO, picture), PHOTO)
    free = targets(features, replace(NEIGHBORS, alpha=0.0), later, picture)._searched(PHOTO, picture)
    halves = [F.interpolate(image, (12, 16), mode="bilinear") for image in (free, picture)]
    assert (halves[0] - halves[1]).abs().mean() < 0.02
    assert (free - picture).abs().max() > 0.01


def test_rotations_add_turned_paintings(features):
    plain, turned = (targets(features, replace(NEIGHBORS, rotations=r, style_samples=400)) for r in (False, True))
    assert hypercolumns(plain.regions[0]).shape[1] == hypercolumns(turned.regions[0]).shape[1] == 400
    exact = targets(features, replace(NEIGHBORS, rotations=True))
    assert hypercolumns(exact.regions[0]).shape[1] == 4 * 20 * 28


def halves(height: int, width: int) -> torch.Tensor:
    """The left half is region 0, the right one region 7."""
    return torch.where(torch.arange(width) < width // 2, 0, 7).expand(1, 1, height, width)


@pytest.mark.slow
@pytest.mark.parametrize("config", [TRANSPORT, replace(NEIGHBORS, palette_weight=1.0)])
def test_a_region_takes_its_style_from_the_same_region(features, config):
    """Left of the painting is dark, right of it is light; the labels exchange them."""
    painting = torch.where(torch.arange(28) < 14, 0.1, 0.9).expand(1, 3, 20, 28).contiguous()
    labels = [halves(24, 32), 7 - halves(10, 14)]
    local = targets(features, config, styles=(painting,), regions=labels)
    assert [len(region.places) for region in local.regions] == [384, 384]
    means = [region.colors.mean().item() for region in local.regions if region.colors is not None]
    assert means == pytest.approx([0.9, 0.1])
    *_, last = optimize(
        PHOTO,
        [painting],
        replace(config, steps=(60,), split=False, palette_weight=20.0, samples=200),
        regions=labels,
        device="cpu",
        features=features,
    )
    left, right = last.image[..., :14].mean(), last.image[..., 18:].mean()
    assert left > right + 0.3


def test_a_region_too_small_to_be_seen_takes_its_style_from_everywhere(features):
    labels = [halves(24, 32), torch.zeros(1, 1, 10, 14, dtype=torch.long)]
    local = targets(features, TRANSPORT, regions=labels)
    assert [hypercolumns(region).shape[1] for region in local.regions] == [560, 560]


FREE = replace(TRANSPORT, self_similarity_weight=0.1)


@pytest.mark.parametrize("config", [FREE, replace(FREE, optimizer="rmsprop", learning_rate=2e-3), NEIGHBORS])
def test_the_loss_falls_and_the_seed_decides(features, config):
    config = replace(config, samples=200, style_samples=300)

    def run(seed):
        iterates = [
            (it.losses, it.image)
            for it in optimize(PHOTO, [PAINTING], config, device="cpu", features=features, seed=seed)
        ]
        return iterates[0], iterates[config.steps[0] - 1], iterates[-1]

    first, last, end = run(1)
    assert sum(last[0].values()) < sum(first[0].values())
    assert end[1].shape == PHOTO.shape
    assert torch.equal(end[1], run(1)[2][1])
    assert not torch.equal(end[1], run(2)[2][1])


def test_memory_of_targets_does_not_grow_with_the_picture(features):
    config = replace(NEIGHBORS, style_samples=300)
    small, large = (targets(features, config, picture=blobs(n, n, 1), styles=(blobs(n, n, 2),)) for n in (24, 96))
    assert hypercolumns(small.regions[0]).shape == hypercolumns(large.regions[0]).shape


@pytest.mark.parametrize(
    ("size", "extents"),
    [
        ((512, 512), [64, 128, 256, 512]),
        ((384, 256), [48, 96, 192, 384]),
        ((1024, 700), [64, 128, 256, 512, 1024]),
        ((50, 50), [50]),
        ((20, 512), [512]),
    ],
)
def test_scales_double_up_to_the_size(size, extents):
    config = replace(PRESETS["kolkin2019"], steps=(9, 5))
    stages = config.stages(*size)
    assert [max(stage.extent) for stage in stages] == extents
    assert [stage.content_factor for stage in stages] == [0.5**index for index in range(len(extents))]
    assert [stage.steps for stage in stages] == [9, *[5] * (len(extents) - 1)]
    assert [stage.details for stage in stages] == [0 < index < len(extents) - 1 for index in range(len(extents))]
    assert [stage.first for stage in stages] == [True, *[False] * (len(extents) - 1)]


def test_layers_are_matched_one_by_one_at_the_end():
    stages = replace(PRESETS["kolkin2022"], steps=(9, 8, 7)).stages(256, 256)
    assert [(stage.extent[0], stage.split) for stage in stages] == [
        (64, False),
        (128, False),
        (256, False),
        (256, True),
    ]
    assert [stage.steps for stage in stages] == [9, 8, 7, 7]
    assert replace(PRESETS["kolkin2022"], steps=(9, 8, 7, 6)).stages(256, 256)[-1].steps == 6


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"alpha": 1.5}, "--alpha"),
        ({"samples": 0}, "--samples"),
        ({"style_samples": 0}, "--style-samples"),
        ({"coarsest": -1}, "--coarsest"),
        ({"emd_weight": -1.0}, "--emd-weight"),
        ({"content_decay": 0.0}, "--content-decay"),
    ],
)
def test_recipes_refuse_nonsense_by_the_option_name(options, flag):
    with pytest.raises(ValueError, match=flag):
        replace(LOCAL, **options)


def test_regions_need_terms_that_compare_places(features):
    with pytest.raises(ValueError, match="regions"):
        next(optimize(PHOTO, [PAINTING], PRESETS["gatys2016"], regions=[halves(4, 4)] * 2, features=features))
    with pytest.raises(ValueError, match="regions"):
        next(optimize(PHOTO, [PAINTING], TRANSPORT, regions=[halves(4, 4)], features=features))
