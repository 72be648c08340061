"""Contact sheets: where every picture and every label lies. Plots: files of the expected size, whole or not at all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from arbitrary_nst.image.figures import GAP, contact_sheet, line_plot

few_examples = settings(max_examples=25, deadline=None)
CELL = 32


def plain(red: float, green: float, blue: float, height: int = CELL, width: int = CELL) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32).view(3, 1, 1).expand(3, height, width)


RED, BLUE, BLACK = plain(1, 0, 0), plain(0, 0, 1), plain(0, 0, 0)


def cell(sheet: torch.Tensor, row: int, column: int, size: int = CELL) -> torch.Tensor:
    """The cell of a sheet without labels."""
    top, left = (GAP + index * (size + GAP) for index in (row, column))
    return sheet[:, top : top + size, left : left + size]


# Contact sheets


@few_examples
@given(st.integers(1, 4), st.integers(1, 4), st.integers(16, 50))
def test_without_labels_cells_have_gaps_around_them_and_nothing_else(rows, columns, size):
    sheet = contact_sheet([[plain(0, 0, 0)] * columns] * rows, cell_size=size)
    assert sheet.shape == (3, GAP + rows * (size + GAP), GAP + columns * (size + GAP))
    assert (sheet[0] == 0).sum() == rows * columns * size**2
    for row in range(rows):
        for column in range(columns):
            assert cell(sheet, row, column, size).max() == 0


def test_every_picture_is_in_its_cell():
    sheet = contact_sheet([[BLUE, RED, BLUE], [RED, BLACK, BLUE]], cell_size=CELL)
    expected = {(0, 0): BLUE, (0, 1): RED, (0, 2): BLUE, (1, 0): RED, (1, 1): BLACK, (1, 2): BLUE}
    for (row, column), picture in expected.items():
        assert_close(cell(sheet, row, column), picture)
    assert sheet[:, :GAP].min() == 1
    assert sheet[:, :, -GAP:].min() == 1


@pytest.mark.parametrize(("height", "width"), [(8, 16), (64, 128), (128, 64), (1, 500), (32, 32)])
def test_pictures_are_fitted_whole_and_centred(height, width):
    sheet = contact_sheet([[plain(1, 0, 0, height, width)]], cell_size=CELL)
    found = cell(sheet, 0, 0)
    red = found[1] == 0
    sides = [max(1, round(side * CELL / max(height, width))) for side in (height, width)]
    assert [red.any(1).sum(), red.any(0).sum()] == sides
    assert_close(found[:, CELL // 2 - (height == 1), CELL // 2], torch.tensor([1.0, 0.0, 0.0]))
    assert (found[:, ~red] == 1).all()
    for empty in (~red.any(1), ~red.any(0)):  # as much on both sides, up to a pixel
        before, after = empty[: CELL // 2].sum(), empty[CELL // 2 :].sum()
        assert abs(before - after) <= 1


def test_empty_cells_are_white():
    sheet = contact_sheet([[RED, None], [None, RED]], cell_size=CELL)
    for row, column in ((0, 1), (1, 0)):
        assert cell(sheet, row, column).min() == 1
    assert contact_sheet([[None]], cell_size=CELL).min() == 1


def test_values_beyond_the_range_are_clamped_and_any_float_will_do():
    sheet = contact_sheet([[plain(2, -1, 0.5).to(torch.bfloat16).requires_grad_()]], cell_size=CELL)
    assert sheet.dtype == torch.float32
    assert not sheet.requires_grad
    assert_close(cell(sheet, 0, 0)[:, 5, 5], torch.tensor([1.0, 0.0, 128 / 255]))


labels = st.text(st.sampled_from("agW, _/.-\n\tÅ風"), max_size=30)


@few_examples
@given(st.lists(labels, min_size=2, max_size=2), st.lists(labels, min_size=3, max_size=3), st.integers(24, 96))
def test_labels_make_the_sheet_larger_and_leave_the_pictures_alone(rows_of, columns_of, size):
    cells = [[RED, None, BLUE], [None, BLUE, RED]]
    bare = contact_sheet(cells, cell_size=size)
    for columns, rows in (([], rows_of), (columns_of, []), (columns_of, rows_of)):
        sheet = contact_sheet(cells, columns, rows, size)
        top, left = (side - other for side, other in zip(sheet.shape[1:], bare.shape[1:], strict=True))
        assert (top > 0) == bool(columns)
        assert (left > 0) == bool(rows)
        assert_close(sheet[:, top + GAP :, left + GAP :], bare[:, GAP:, GAP:])


def test_labels_are_drawn_above_their_column_and_beside_their_row():
    step = CELL + GAP
    bare = contact_sheet([[None] * 2] * 2, cell_size=CELL)

    sheet = contact_sheet([[None] * 2] * 2, ["", "WWW"], cell_size=CELL)
    top = sheet.shape[1] - bare.shape[1]
    assert sheet[:, :, : GAP + step].min() == 1
    assert sheet[:, : top + GAP, GAP + step :].min() < 0.5

    sheet = contact_sheet([[None] * 2] * 2, (), ["", "WWW"], CELL)
    left = sheet.shape[2] - bare.shape[2]
    assert sheet[:, : GAP + step].min() == 1
    assert sheet[:, GAP + step :, : left + GAP].min() < 0.5


def test_long_labels_are_broken_into_lines():
    def top(label: str) -> int:
        return contact_sheet([[RED]], [label], cell_size=96).shape[1]

    assert top("one") < top("one_two_three_four_five") < top("one_two_three_four_five_six_seven_eight_nine")
    assert top("one") < top("w" * 40)  # where there is nothing to break after


@pytest.mark.parametrize(
    ("cells", "columns", "rows", "message"),
    [
        ([], (), (), "at least one"),
        ([[]], (), (), "at least one"),
        ([[RED], [RED, RED]], (), (), "equally many"),
        ([[RED, RED]], ("one",), (), "1 x 2 pictures need as many labels, not 0 and 1"),
        ([[RED, RED]], (), ("one", "two"), "1 x 2 pictures need as many labels, not 2 and 0"),
    ],
)
def test_sheets_that_cannot_be_are_refused(cells, columns, rows, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(cells, columns, rows, CELL)


# Plots


CURVES = {"fast": ([1, 10, 100], [30.0, 3.0, 0.3]), "slow": (list(range(1, 40)), [1 / step for step in range(1, 40)])}


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("levels", [None, {"reference": 2.0}])
def test_a_plot_is_a_png_of_1050_by_675_pixels_with_something_in_it(tmp_path, logarithmic, levels):
    path = tmp_path / "new folder" / "plot.png"
    line_plot(path, CURVES, levels, "iterations", "loss", logarithmic)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1050, 675))
        assert len(image.convert("RGB").getcolors(1050 * 675) or ()) > 10
    assert list(path.parent.iterdir()) == [path]


def test_axis_and_levels_change_the_picture(tmp_path):
    drawn = set()
    for index, (levels, logarithmic) in enumerate([(None, False), (None, True), ({"reference": 2.0}, False)]):
        path = tmp_path / f"{index}.png"
        line_plot(path, CURVES, levels, logarithmic=logarithmic)
        with Image.open(path) as image:
            drawn.add(image.tobytes())
    assert len(drawn) == 3


def test_a_plot_of_nothing_and_one_with_a_zero_on_a_logarithmic_axis_are_drawn(tmp_path):
    line_plot(tmp_path / "nothing.png", {})
    line_plot(tmp_path / "zeros.png", {"falling": ([1, 2], [1.0, 0.0])}, {"level": 0.0}, logarithmic=True)
    assert {path.name for path in tmp_path.iterdir()} == {"nothing.png", "zeros.png"}


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")])
def test_the_suffix_decides_the_format(tmp_path, suffix, start):
    path = tmp_path / f"plot{suffix}"
    line_plot(path, CURVES)
    assert path.read_bytes().startswith(start)


def test_a_failure_leaves_no_partial_file_and_the_earlier_plot(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "plot.png"
    line_plot(path, CURVES)
    before = path.read_bytes()

    def full(figure, file, **options):
        file.write_bytes(b"half a plot")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="no space"):
        line_plot(path, {})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nonesuch"):
        line_plot(tmp_path / "plot.nonesuch", CURVES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("letter", ["é", "Ł", "β", "Д"])
def test_letters_of_names_are_drawn(letter):
    drawn = contact_sheet([[RED]], [letter], cell_size=CELL)
    for other in ("e", "L", "\ufffe"):
        assert not torch.equal(drawn, contact_sheet([[RED]], [other], cell_size=CELL))
