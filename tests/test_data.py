import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from arbitrary_nst.data import Augmentation, Pairs, PictureFolder, Resumable, batches
from arbitrary_nst.data.pairs import Draw, augment_style, random_crop
from arbitrary_nst.image import load_pixels
from arbitrary_nst.paths import ImageError

PLAIN = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0)


@pytest.fixture
def paths(tmp_path):
    """Four pictures of 20 x 30 random pixels."""
    generator = np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return sorted(tmp_path.glob("*.png"))


class CountingLoader:
    """`load_pixels` that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Path] = []

    def __call__(self, path: Path, short_side: int) -> torch.Tensor:
        self.asked.append(path)
        return load_pixels(path, short_side)


def pictures(folder: PictureFolder) -> list[torch.Tensor]:
    return [folder[index] for index in range(len(folder))]


def random_pictures(count: int = 5, height: int = 40, width: int = 56) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


# Folders


def test_pictures_come_in_the_order_of_their_paths(paths):
    folder = PictureFolder(paths, short_side=20)
    assert len(folder) == 4
    assert all(torch.equal(pixels, load_pixels(path, 20)) for pixels, path in zip(pictures(folder), paths, strict=True))


def test_large_pictures_are_shrunk_to_the_short_side_and_small_ones_left(paths):
    assert PictureFolder(paths, short_side=10)[0].shape == (3, 10, 15)
    assert PictureFolder(paths, short_side=99)[0].shape == (3, 20, 30)


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_first_pictures_are_kept_and_later_ones_decoded_again_to_the_same_pixels(paths, kept):
    load = CountingLoader()
    folder = PictureFolder(paths, 20, memory=kept * 3 * 20 * 30, load=load)
    load.asked.clear()
    expected = [load_pixels(path, 20) for path in paths]
    assert all(torch.equal(a, b) for a, b in zip(pictures(folder), expected, strict=True))
    assert load.asked == paths[kept:]


def test_no_later_picture_is_kept_where_an_earlier_one_did_not_fit(paths):
    Image.new("RGB", (30, 40)).save(paths[1])
    load = CountingLoader()
    folder = PictureFolder(paths, 99, memory=2 * 3 * 20 * 30, load=load)  # room for two of the small ones
    load.asked.clear()
    assert [pixels.shape[1] for pixels in pictures(folder)] == [20, 40, 20, 20]
    assert load.asked == paths[1:]


def test_corrupt_file_is_left_out_counted_and_named_in_the_log(paths, caplog):
    paths[1].write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with caplog.at_level(logging.WARNING):
        folder = PictureFolder(paths, 20)
    assert folder.paths == [paths[0], *paths[2:]]
    assert torch.equal(folder[1], load_pixels(paths[2], 20))
    assert len(folder.skipped) == 1
    assert str(paths[1]) in caplog.text
    assert "1 of 4" in caplog.text


def test_only_corrupt_files_are_refused(paths):
    for path in paths:
        path.write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"none of the 4 pictures.*png"):
        PictureFolder(paths, 20)


@pytest.mark.parametrize(("bad", "instead"), [(0, 1), (2, 3), (3, 0)])
def test_picture_that_turns_bad_later_is_replaced_by_the_next_and_counted(paths, bad, instead):
    folder = PictureFolder(paths, 20, memory=0)
    paths[bad].unlink()
    assert torch.equal(folder[bad], folder[instead])
    assert len(folder.skipped) == 1


def test_folder_that_has_gone_is_an_error(paths):
    folder = PictureFolder(paths, 20, memory=0)
    for path in paths:
        path.unlink()
    with pytest.raises(ImageError, match="none of the 4 pictures"):
        folder[1]


def test_folder_ends_with_its_last_picture(paths):
    folder = PictureFolder(paths, 20)
    with pytest.raises(IndexError):
        folder[4]


# Crops


@pytest.mark.parametrize(("height", "width"), [(60, 200), (200, 60), (60, 60)])
@pytest.mark.parametrize("short_side", [1.0, 1.5, 3.0])
def test_crop_keeps_the_aspect_and_shows_the_stated_part(height, width, short_side):
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    picture = torch.stack([down, across, down]).to(torch.uint8)  # one step a pixel in both directions
    crop = random_crop(picture, 32, (short_side, short_side), Draw(0, 3)).int()
    assert crop.shape == (3, 32, 32)
    side = 60 / short_side
    assert abs((crop[0, -1] - crop[0, 0]).float().mean().item() - side * 31 / 32) <= 2
    assert abs((crop[1, :, -1] - crop[1, :, 0]).float().mean().item() - side * 31 / 32) <= 2
    assert crop[1].diff(dim=1).max() - crop[1].diff(dim=1).min() <= 2


def test_crops_move_over_the_whole_picture():
    picture = torch.arange(200).to(torch.uint8).expand(3, 50, 200)
    left = torch.tensor([random_crop(picture, 16, (1.0, 1.0), Draw(0, i))[0, 0, 0].item() for i in range(200)])
    assert left.min() < 10
    assert left.max() > 140
    assert abs(left.float().mean() - 75) < 10


def test_small_pictures_are_enlarged():
    assert random_crop(random_pictures(1, 1, 3)[0], 16, (1.0, 2.0), Draw(0, 0)).shape == (3, 16, 16)


def test_colours_change_for_the_stated_share_of_paintings_only():
    gray = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    vary = Augmentation(colour_share=0.3)
    changed = [not torch.equal(augment_style(gray, vary, Draw(1, index)), gray) for index in range(300)]
    assert 0.2 < sum(changed) / 300 < 0.4


# Pairs


def test_sample_is_two_float_crops_in_zero_to_one():
    *crops, number = Pairs(random_pictures(), random_pictures(), 32)[5]
    assert number in range(5)
    for crop in crops:
        assert crop.shape == (3, 32, 32)
        assert crop.dtype == torch.float32
        assert 0 <= crop.min() < crop.max() <= 1


def test_sample_depends_on_seed_and_index_only():
    first, second = (Pairs(random_pictures(), random_pictures(), 16, seed=3) for _ in range(2))
    forward = [first[index] for index in range(4)]
    torch.manual_seed(99)
    backward = [second[index] for index in reversed(range(4))]
    for ours, theirs in zip(forward, reversed(backward), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours[:2], theirs[:2], strict=True))
        assert ours[2] == theirs[2]


def test_other_seeds_and_indices_give_other_samples():
    pictures = random_pictures()
    samples = [Pairs(pictures, pictures, 16, seed)[index] for seed in (0, 1) for index in range(3)]
    assert len({(content.sum().item(), style.sum().item()) for content, style, _ in samples}) == 6


def test_sampling_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    Pairs(random_pictures(), random_pictures(), 16)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_plain_crop_of_a_square_picture_is_the_picture_or_its_mirror():
    (picture,) = random_pictures(1, 16, 16)
    expected = picture.float() / 255
    contents = [Pairs([picture], [picture], 16, augmentation=PLAIN)[index][0] for index in range(20)]
    mirrored = [not torch.equal(content, expected) for content in contents]
    assert all(torch.equal(c, expected.flip(2)) for c, flipped in zip(contents, mirrored, strict=True) if flipped)
    assert 4 < sum(mirrored) < 16


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 20)])
def test_identity_share_makes_photos_their_own_style(share, expected):
    pairs = Pairs(random_pictures(), random_pictures(), 8, augmentation=Augmentation(identity_share=share))
    assert sum(torch.equal(*pairs[index][:2]) for index in range(20)) == expected
    assert sum(pairs[index][2] == -1 for index in range(20)) == expected


@pytest.mark.parametrize("numbers", [None, [7, 3, 5]])
def test_sample_carries_the_number_of_its_painting(numbers):
    paintings = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 100, 200)]
    pairs = Pairs(random_pictures(), paintings, 8, augmentation=PLAIN, numbers=numbers)
    for index in range(10):
        _, style, number = pairs[index]
        assert number == (numbers or [0, 1, 2])[round(255 * style[0, 0, 0].item()) // 100]


def test_paintings_are_not_mirrored_where_that_is_not_wanted():
    (picture,) = random_pictures(1, 16, 16)
    plain = Augmentation((1.0, 1.0), (1.0, 1.0), colour_share=0.0, flip_styles=False)
    pairs = Pairs([picture], [picture], 16, augmentation=plain)
    assert all(torch.equal(pairs[index][1], picture.float() / 255) for index in range(10))


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


def test_workers_change_no_batch():
    pairs = Pairs(random_pictures(), random_pictures(), 16)
    runs = [list(batches(pairs, Resumable(1, 4, batch_size=2), workers)) for workers in (0, 1)]
    assert [content.shape for content, _, _ in runs[0]] == [(2, 3, 16, 16)] * 3
    for ours, theirs in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert_close(runs[0][0][0][0], pairs[2][0])
