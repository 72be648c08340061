"""The picture at the top of the README: example photos in example styles, by the weights that ship.

python tools/make_figure.py --output docs/figure.jpg

Or some of these pairs, two in a row, each as photo, painting and result:

python tools/make_figure.py --pairs coffee:ink_wash rocket:woodcut_wave --output pairs.jpg
"""

import argparse
from pathlib import Path

import torch

from arbitrary_nst import Stylizer, load_image, save_image
from arbitrary_nst.image import resize

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIDE, GAP = 168, 4


def tile(image: torch.Tensor) -> torch.Tensor:
    """The middle square of an image, (1, 3, SIDE, SIDE)."""
    image = resize(image, SIDE)
    top, left = (image.shape[2] - SIDE) // 2, (image.shape[3] - SIDE) // 2
    return image[:, :, top : top + SIDE, left : left + SIDE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pairs", nargs="+", metavar="PHOTO:PAINTING")
    arguments = parser.parse_args()
    rows = pairs(arguments.pairs) if arguments.pairs else everything()
    step = SIDE + GAP
    canvas = torch.ones(1, 3, step * len(rows) - GAP, step * len(rows[0]) - GAP)
    for row, tiles in enumerate(rows):
        for column, image in enumerate(tiles):
            canvas[:, :, row * step : row * step + SIDE, column * step : column * step + SIDE] = image
    save_image(canvas, arguments.output, quality=85)


def pairs(names: list[str]) -> list[list[torch.Tensor]]:
    """Rows of two pairs; the number of names must be even."""
    stylizer = Stylizer.from_pretrained()
    tiles = []
    for content, style in (name.split(":") for name in names):
        photo, painting = (
            load_image(EXAMPLES / folder / f"{name}.jpg") for folder, name in (("content", content), ("styles", style))
        )
        tiles += map(tile, (photo, painting, stylizer(photo, stylizer.encode_style(painting))))
    return [tiles[index : index + 6] for index in range(0, len(tiles), 6)]


def everything() -> list[list[torch.Tensor]]:
    """A row for every photo, a column for every painting."""
    stylizer = Stylizer.from_pretrained()
    paintings = [load_image(path) for path in sorted((EXAMPLES / "styles").glob("*.jpg"))]
    codes = [stylizer.encode_style(painting) for painting in paintings]
    rows = [[torch.ones(1, 3, SIDE, SIDE), *map(tile, paintings)]]
    for path in sorted((EXAMPLES / "content").glob("*.jpg")):
        photo = load_image(path)
        rows.append([tile(photo), *(tile(stylizer(photo, code)) for code in codes)])
    return rows


if __name__ == "__main__":
    main()
