import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from arbitrary_nst.data import Augmentation, PairDataset, Resumable, batches
from arbitrary_nst.data.pairs import SampleRNG, augment_style, random_crop
from arbitrary_nst.runtime.files import ImageError

PLAIN = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0)


def random_pictures(count: int = 5, height: int = 40, width: int = 56) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


class PartlyCorrupt:
    """Flat pictures whose gray is their place; those in `bad` cannot be read."""

    def __init__(self, count: int, bad: set[int]) -> None:
        self.size, self.bad = count, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> torch.Tensor:
        if index in self.bad:
            raise ImageError(f"{index}.jpg: the file is truncated")
        return torch.full((3, 8, 8), index, dtype=torch.uint8)


# Crops


@pytest.mark.parametrize(("height", "width"), [(60, 200), (200, 60), (60, 60)])
@pytest.mark.parametrize("short_side", [1.0, 1.5, 3.0])
def test_crop_keeps_the_aspect_and_shows_the_stated_part(height, width, short_side):
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([down, across, down]).to(torch.uint8)  # one step a pixel in both directions
    crop = random_crop(picture, 32, (short_side, short_side), SampleRNG(0, 3)).int()
    assert crop.shape == (3, 32, 32)
    side = 60 / short_side
    assert abs((crop[0, -1] - crop[0, 0]).float().mean().item() - side * 31 / 32) <= 2
    assert abs((crop[1, :, -1] - crop[1, :, 0]).float().mean().item() - side * 31 / 32) <= 2
    assert crop[1].diff(dim=1).max() - crop[1].diff(dim=1).min() <= 2


def test_crops_move_over_the_whole_picture():
    picture = torch.arange(200).to(torch.uint8).expand(3, 50, 200)
    left = torch.tensor([random_crop(picture, 16, (1.0, 1.0), SampleRNG(0, i))[0, 0, 0].item() for i in range(200)])
    assert left.min() < 10
    assert left.max() > 140
    assert abs(left.float().mean() - 75) < 10


def test_small_pictures_are_enlarged():
    assert random_crop(random_pictures(1, 1, 3)[0], 16, (1.0, 2.0), SampleRNG(0, 0)).shape == (3, 16, 16)


def test_colours_change_for_the_stated_share_of_paintings_only():
    gray = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    vary = Augmentation(colour_share=0.3)
    changed = [not torch.equal(augment_style(gray, vary, SampleRNG(1, index)), gray) for index in range(300)]
    assert 0.2 < sum(changed) / 300 < 0.4


# Pairs


def test_sample_is_two_float_crops_in_zero_to_one():
    *crops, number, skipped = PairDataset(random_pictures(), random_pictures(), 32)[5]
    assert number in range(5)
    assert skipped == 0
    for crop in crops:
        assert crop.shape == (3, 32, 32)
        assert crop.dtype == torch.float32
        assert 0 <= crop.min() < crop.max() <= 1


def test_sample_depends_on_seed_and_index_only():
    first, second = (PairDataset(random_pictures(), random_pictures(), 16, seed=3) for _ in range(2))
    forward = [first[index] for index in range(4)]
    torch.manual_seed(99)
    backward = [second[index] for index in reversed(range(4))]
    for ours, theirs in zip(forward, reversed(backward), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True))
        assert ours[2] == theirs[2]


def test_other_seeds_and_indices_give_other_samples():
    pictures = random_pictures()
    samples = [PairDataset(pictures, pictures, 16, seed)[index] for seed in (0, 1) for index in range(3)]
    assert len({(content.sum().item(), style.sum().item()) for content, style, *_ in samples}) == 6


def test_sampling_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    PairDataset(random_pictures(), random_pictures(), 16)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_plain_crop_of_a_square_picture_is_the_picture_or_its_mirror():
    (picture,) = random_pictures(1, 16, 16)
    expected = picture.float() / 255
    contents = [PairDataset([picture], [picture], 16, augmentation=PLAIN)[index][0] for index in range(20)]
    mirrored = [not torch.equal(content, expected) for content in contents]
    assert all(torch.equal(c, expected.flip(2)) for c, flipped in zip(contents, mirrored, strict=True) if flipped)
    assert 4 < sum(mirrored) < 16


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 20)])
def test_identity_share_makes_photos_their_own_style(share, expected):
    pairs = PairDataset(random_pictures(), random_pictures(), 8, augmentation=Augmentation(identity_share=share))
    assert sum(torch.equal(*pairs[index][:2]) for index in range(20)) == expected
    assert sum(pairs[index][2] == -1 for index in range(20)) == expected


@pytest.mark.parametrize("numbers", [None, [7, 3, 5]])
def test_sample_carries_the_number_of_its_painting(numbers):
    paintings = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 100, 200)]
    pairs = PairDataset(random_pictures(), paintings, 8, augmentation=PLAIN, numbers=numbers)
    for index in range(10):
        _, style, number, _ = pairs[index]
        assert number == (numbers or [0, 1, 2])[round(255 * style[0, 0, 0].item()) // 100]


def test_paintings_are_not_mirrored_where_that_is_not_wanted():
    (picture,) = random_pictures(1, 16, 16)
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0, flip_styles=False)
    pairs = PairDataset([picture], [picture], 16, augmentation=plain)
    assert all(torch.equal(pairs[index][1], picture.float() / 255) for index in range(10))


# Corrupt pictures


@pytest.mark.parametrize("bad", [{0, 1, 2}, {3}, {1, 3}])
def test_next_readable_picture_takes_the_place_of_a_corrupt_one(bad):
    instead = [next(place % 4 for place in range(first, first + 4) if place % 4 not in bad) for first in range(4)]
    pairs = PairDataset(PartlyCorrupt(4, bad), random_pictures(1), 8, augmentation=PLAIN)
    for index in range(20):
        place = SampleRNG(0, index).integer(4)
        content, _, _, skipped = pairs[index]
        assert round(content[0, 0, 0].item() * 255) == instead[place]
        assert skipped == (instead[place] - place) % 4


def test_number_is_that_of_the_painting_which_took_the_place():
    pairs = PairDataset(random_pictures(1), PartlyCorrupt(4, {0, 2}), 8, augmentation=PLAIN, numbers=[10, 11, 12, 13])
    for index in range(20):
        _, style, number, _ = pairs[index]
        assert number == 10 + round(style[0, 0, 0].item() * 255)


@pytest.mark.parametrize("workers", [0, 1])
def test_skipped_pictures_are_counted_also_when_a_worker_meets_them(workers):
    contents = PartlyCorrupt(100, set(range(0, 100, 20)))  # five in a hundred
    pairs = PairDataset(contents, PartlyCorrupt(100, set()), 8, augmentation=PLAIN)
    loader = batches(pairs, Resumable(0, 20, batch_size=8), workers)
    assert len(list(loader)) == 20
    assert loader.skipped == sum(SampleRNG(0, index).integer(100) in contents.bad for index in range(160)) > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_where_everything_is_corrupt_the_run_stops_and_says_so_in_one_line(workers):
    pairs = PairDataset(PartlyCorrupt(4, {0, 1, 2, 3}), random_pictures(1), 8)
    with pytest.raises(ImageError) as raised:
        list(batches(pairs, Resumable(0, 2, batch_size=2), workers))
    assert str(raised.value) == "none of the 4 pictures can be read; is their disk still there?"


# Order


def test_resuming_gives_the_tail_of_the_full_run():
    full = list(Resumable(0, 10, batch_size=4))
    assert full == list(range(40))
    assert list(Resumable(7, 10, batch_size=4)) == full[7 * 4 :]
    assert len(Resumable(7, 10, batch_size=4)) == 12


def test_processes_share_the_samples_of_each_step_without_overlap():
    ranks = [list(Resumable(2, 5, batch_size=2, rank=rank, processes=3)) for rank in range(3)]
    for step in range(3):
        together = [index for rank in ranks for index in rank[2 * step : 2 * step + 2]]
        assert together == list(range(6 * (step + 2), 6 * (step + 3)))


@given(start=st.integers(0, 9), steps=st.integers(1, 5), batch_size=st.integers(1, 4), processes=st.integers(1, 5))
def test_shares_of_all_processes_are_the_samples_of_one(start, steps, batch_size, processes):
    ranks = [list(Resumable(start, start + steps, batch_size, rank, processes)) for rank in range(processes)]
    whole = batch_size * processes
    assert sorted(index for rank in ranks for index in rank) == list(range(start * whole, (start + steps) * whole))
    later = [list(Resumable(start + 1, start + steps, batch_size, rank, processes)) for rank in range(processes)]
    assert later == [rank[batch_size:] for rank in ranks]


def test_workers_change_no_batch():
    pairs = PairDataset(random_pictures(), random_pictures(), 16)
    runs = [list(batches(pairs, Resumable(1, 4, batch_size=2), workers)) for workers in (0, 1, 2)]
    assert [content.shape for content, _, _ in runs[0]] == [(2, 3, 16, 16)] * 3
    for other in runs[1:]:
        for ours, theirs in zip(runs[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert_close(runs[0][0][0][0], pairs[2][0])
