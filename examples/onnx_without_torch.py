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


def main(folder: str, content: str, style: str, output: str) -> None:
    encoder = onnxruntime.InferenceSession(f"{folder}/style_encoder.onnx")
    stylizer = onnxruntime.InferenceSession(f"{folder}/stylizer.onnx")
    facts = json.loads(stylizer.get_modelmeta().custom_metadata_map["arbitrary_nst"])

    (code,) = encoder.run(None, {"style": load(style, facts["style_size"])})
    (stylized,) = stylizer.run(None, {"content": load(content), "code": code})

    levels = (stylized[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(output)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
