"""Stylize one photo with exported ONNX files: numpy, Pillow and onnxruntime are all it needs.

python -m arbitrary_nst export --output exported
python examples/onnx_without_torch.py exported photo.jpg painting.jpg result.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def load(path: str, short_side: int | None = None) -> np.ndarray:
    """A picture as (1, 3, H, W) float32 RGB in [0, 1], upright, at most `short_side` pixels wide or high."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if short_side is not None and min(picture.size) > short_side:
        scale = short_side / min(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255


def halve(image: np.ndarray) -> np.ndarray:
    """Half the size: means of 2 x 2 pixels; odd sides are continued by one."""
    image = np.pad(image, [(0, 0), (0, 0), (0, image.shape[2] % 2), (0, image.shape[3] % 2)], "edge")
    return (image[:, :, ::2, ::2] + image[:, :, 1::2, ::2] + image[:, :, ::2, 1::2] + image[:, :, 1::2, 1::2]) / 4


def double(image: np.ndarray) -> np.ndarray:
    """Twice the size, bilinear."""
    return stretch(stretch(image, 2), 3)


def stretch(image: np.ndarray, axis: int) -> np.ndarray:
    """Twice as long along one axis, linear."""
    before, after = np.roll(image, 1, axis), np.roll(image, -1, axis)
    first, last = [slice(None)] * 4, [slice(None)] * 4
    first[axis], last[axis] = slice(0, 1), slice(-1, None)
    before[tuple(first)], after[tuple(last)] = image[tuple(first)], image[tuple(last)]
    pair = np.stack([0.75 * image + 0.25 * before, 0.75 * image + 0.25 * after], axis + 1)
    return pair.reshape([2 * side if index == axis else side for index, side in enumerate(image.shape)])


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture in [0, 1] at another size, antialiased bicubic."""
    if image.shape[2:] == (height, width):
        return image
    planes = (Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in image[0])
    return np.stack([np.asarray(plane) for plane in planes])[None].clip(0, 1)


def noise(height: int, width: int) -> np.ndarray:
    """The noise that tells the places of an even area apart, (1, 1, height, width)."""
    state = np.arange(1024**2, dtype=np.uint64) * 747796405 + 2891336453 & 0xFFFFFFFF
    word = (state >> (state >> 28) + 4 ^ state) * 277803737 & 0xFFFFFFFF
    white = ((word >> 22 ^ word) / 2**32 - 0.5).astype(np.float32).reshape(1, 1, 1024, 1024)
    fine = double(double(halve(halve(white))))
    broad = double(double(halve(halve(fine))))
    total = sum(part / part.std() for part in (white, fine, broad))
    y, x = np.arange(height)[:, None], np.arange(width)
    i, j = y // 1024, x // 1024  # squares of the plane, each rolled by steps of its own
    down, across = (y + 131 * i + 397 * j * j) % 1024, (x + 611 * i * i + 173 * j) % 1024
    return (0.15 / total.std() * total)[:, :, down, across]


def main(folder: str, content: str, style: str, output: str) -> None:
    encoder = onnxruntime.InferenceSession(f"{folder}/style_encoder.onnx")
    stylizer = onnxruntime.InferenceSession(f"{folder}/stylizer.onnx")
    metadata = json.loads(stylizer.get_modelmeta().custom_metadata_map["arbitrary_nst"])
    size, view = metadata["style_size"], metadata["view_size"]

    # one view of the painting for the first octave, one at up to twice the size for the others
    first = encoder.run(None, {"style": load(style, size)})[0][:, :view]
    further = encoder.run(None, {"style": load(style, 2 * size)})[0][:, view:]

    octaves = [load(content)]
    for _ in range(1, (min(octaves[0].shape[2:]) // 450).bit_length()):
        octaves.insert(0, halve(octaves[0]))
    coarse = octaves[0]
    if len(octaves) > 1:  # the first of several is painted with a short side of 512 pixels, whatever the photo's size
        scale = 512 / min(coarse.shape[2:])
        coarse = resize(coarse, *(int(side * scale + 0.5) for side in coarse.shape[2:]))
    guide = coarse + noise(*coarse.shape[2:])
    (painted,) = stylizer.run(None, {"content": coarse, "guide": guide, "view": first})
    for photo in octaves[1:]:  # from coarse to fine: what was painted, enlarged, with the photo's detail
        height, width = photo.shape[2:]
        half = -(-height // 2), -(-width // 2)
        coarse, painted = resize(coarse, *half), resize(painted, *half)
        change = double(painted - coarse)[:, :, :height, :width]
        coarse, before = photo, painted
        guide = photo + change + noise(height, width)
        (painted,) = stylizer.run(None, {"content": photo, "guide": guide, "view": further})
        # held to the octave before: wholly at a quarter of its size, in part at half of it
        missing = before - halve(painted)
        broad = double(halve(missing))[:, :, : half[0], : half[1]]
        missing = broad + 0.3 * (missing - broad)
        painted = (painted + double(missing)[:, :, :height, :width]).clip(0, 1)

    levels = (painted[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(output)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
