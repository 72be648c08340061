"""A static site that paints in the visitor's browser: the page, the models, the runtime and the gallery in one folder.

What is in `static/` is copied as it is. `onnxruntime_web` has the runtime.

Shapes: D numbers of a style code.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from arbitrary_nst.errors import StyleFileError
from arbitrary_nst.image import load_pixels
from arbitrary_nst.models import CoarseToFine
from arbitrary_nst.models.serialization import STYLE_ENCODER, STYLIZER
from arbitrary_nst.runtime.files import atomic_write
from arbitrary_nst.site.onnxruntime_web import runtime_files
from arbitrary_nst.stylization.style_files import GALLERY, SavedStyle, gallery, load_style
from arbitrary_nst.stylization.stylizer import Stylizer

STATIC = Path(str(files("arbitrary_nst.site"))) / "static"
EXAMPLE = Path(str(files("arbitrary_nst"))) / "web" / "example.jpg"

START = "wheat-field"
"""The style of the gallery that is chosen when the page opens."""

SWATCH = 160
"""Pixels: the side of a style's picture in the gallery."""

LARGEST_SWATCHES = 120_000
"""Bytes of all swatches, as far as their quality may be lowered for it: they come before the first paint."""

CHECK = (64, 48)
"""Width and height of the picture by which a browser finds out whether its graphics driver computes what it should."""

SMALL_TENSOR = 1024
"""Numbers: smaller tensors stay in float32."""


def write_site(output: Path, source: str | Path, model: CoarseToFine, graphs: Path, facts: Mapping[str, Any]) -> None:
    """Write the site, or bring one up to date.

    Args:
        output: folder of the site; it is made where there is none.
        source: the name or the file of the model, which decides whether the gallery is its own.
        model: the network, which paints the gallery's swatches.
        graphs: folder of the float32 style encoder and stylizer.
        facts: what the exporter knows of the model.

    Raises:
        MissingPackageError: the runtime cannot be downloaded.
    """
    content = dict(_site_files(source, model, graphs, facts))
    hashes = {name: sha256(data).hexdigest()[:16] for name, data in sorted(content.items()) if name != "sw.js"}
    content["sw.js"] = f"const FILES = {json.dumps(hashes, indent=2)};\n\n".encode() + content["sw.js"]
    for name, data in content.items():
        with atomic_write(output / name) as partial:
            partial.write_bytes(data)


def _site_files(
    source: str | Path, model: CoarseToFine, graphs: Path, facts: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """Every file of the site: its path and its content. Arguments and errors are those of `write_site`."""
    for path in sorted(STATIC.iterdir()):
        yield path.name, path.read_bytes()
    yield "example.jpg", EXAMPLE.read_bytes()
    for name, data in {**runtime_files(), "LICENSE.txt": _licences().encode()}.items():
        yield f"ort/{name}", data

    models = {f"models/{name}": _half_weights(graphs / name) for name in (STYLE_ENCODER, STYLIZER)}
    yield from models.items()
    styles = _known_styles(source)
    codes = [style.code for style in styles]
    yield "gallery.bin", b"".join(code.numpy().astype("<f4").tobytes() for code in codes)
    if styles:
        yield "swatches.webp", _swatches(model, styles)
    yield "check.bin", _expected_check(model, facts["view_size"])
    about = {
        "encoder": f"models/{STYLE_ENCODER}",
        "stylizer": f"models/{STYLIZER}",
        "sizes": {name: len(data) for name, data in models.items()},
        "check": {"path": "check.bin", "width": CHECK[0], "height": CHECK[1]},
        "codeSize": facts["code_size"],
        "viewSize": facts["view_size"],
        "styleSize": facts["style_size"],
        "smallestPainting": facts["smallest_painting"],
        "smallestPhoto": facts["smallest_photo"],
        "start": START,
        "gallery": [{"name": s.name, **{key: s.provenance[key] for key in ("title", "artist")}} for s in styles],
    }
    yield "site.js", f"export default {json.dumps(about, indent=2, ensure_ascii=False)};\n".encode()


def _known_styles(source: str | Path) -> list[SavedStyle]:
    """The works that the gallery has for a model."""
    with suppress(StyleFileError):  # of another model
        return [load_style(GALLERY + name, source) for name in gallery()]
    return []


def _swatches(model: CoarseToFine, styles: list[SavedStyle]) -> bytes:
    """The middle of the example photo in every style, one below the other, as WebP."""
    photo, stylizer = _example(), Stylizer(model, "cpu", "float32")
    column = torch.cat([stylizer(photo, style.code) for style in styles], 2)[0]
    picture = Image.fromarray(column.mul(255).round().byte().permute(1, 2, 0).numpy())
    for quality in (75, 55, 35, 15):
        buffer = BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if len(buffer.getvalue()) <= LARGEST_SWATCHES:
            break
    return buffer.getvalue()


def _expected_check(model: CoarseToFine, view_size: int) -> bytes:
    """What the model makes of a small pattern in the style of the example, in 8 bits, and that style in float32."""
    width, height = CHECK
    pattern = (7 * torch.arange(3 * width * height) % 64 / 63).view(1, 3, height, width)
    with torch.inference_mode():
        view = model.encode_style(_example())[:, :view_size]
        painted = model.stylize_octave(pattern, pattern, view).clamp(0, 1)
    return painted.mul(255).round().byte().numpy().tobytes() + view.numpy().astype("<f4").tobytes()


def _example() -> Float[Tensor, "1 3 H W"]:
    photo = load_pixels(EXAMPLE, SWATCH)[None].float() / 255
    left = (photo.shape[3] - SWATCH) // 2
    return photo[..., left : left + SWATCH]


def _half_weights(path: Path) -> bytes:
    """A graph whose large tensors are stored in float16 and computed with in float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    # The runtime keeps the memory of a map for later ones that it knows to be as large: more than it takes to free it.
    del model.graph.value_info[:]
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL_TENSOR:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for place, cast in enumerate(casts):
        model.graph.node.insert(place, cast)
    return model.SerializeToString()


def _licences() -> str:
    """The licences of the runtime, which is built from the same sources as the Python package."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent
    return "\n\n".join((folder / name).read_text(encoding="utf-8") for name in ("LICENSE", "ThirdPartyNotices.txt"))
