"""Models as ONNX files: a style encoder and a stylizer of any batch, height and width, checked against PyTorch.

Shapes: B batch, D numbers of a style code, H x W pixels. Images are float RGB in [0, 1], channels first.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst import __version__
from arbitrary_nst.image import load_image, resize
from arbitrary_nst.models import StylePrediction
from arbitrary_nst.models.files import ModelFileError, load_model, model_card, model_file, model_identity
from arbitrary_nst.models.onnx import STYLE_ENCODER, STYLIZER, open_session, run
from arbitrary_nst.models.style_prediction import SMALLEST_PAINTING, LightTransformer
from arbitrary_nst.paths import find_images, written_whole
from arbitrary_nst.stylizer import STYLE_SIZE

TOLERANCE = 1e-3
"""Largest difference from PyTorch, in numbers of a picture in [0, 1] and of a style code, that is let pass."""

SIZES = ((1, 80, 80), (2, 131, 97), (1, 256, 384))
"""Batch, height and width at which an export is checked."""

LARGEST_SIDE = 1 << 15


class ExportMismatch(ModelFileError):
    """An exported file does not compute what the model computes."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a model as ONNX files: a style encoder and a stylizer, for any batch and any size."""

    output: Path
    """Folder for style_encoder.onnx and stylizer.onnx."""
    model: str = "light"
    """A model that ships with the package, or a .safetensors file written by train.py."""
    opset: int = 20
    """Version of the ONNX operators."""
    float16: bool = False
    """Also stylizer_float16.onnx: half the size; faster only where the device multiplies float16."""
    int8: tuple[Path, ...] = ()
    """Also stylizer_int8.onnx, calibrated on these pictures (files, folders or globs), each a photo and a painting."""
    calibration_size: int = 256
    """Short side in pixels at which pictures calibrate."""

    def __post_init__(self) -> None:
        if not 18 <= self.opset <= 23:
            raise ValueError(f"--opset {self.opset}: must be 18 to 23")
        if self.calibration_size < SMALLEST_PAINTING:
            raise ValueError(f"--calibration-size {self.calibration_size}: must be at least {SMALLEST_PAINTING}")


class Painter(nn.Module):
    """The stylizer as one graph: padding to the network's multiple included, whatever the size."""

    def __init__(self, model: StylePrediction) -> None:
        super().__init__()
        self.model = model

    def forward(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "B D"]) -> Float[Tensor, "B 3 H W"]:
        height, width = content.shape[2:]
        multiple = self.model.transformer.multiple
        padded = F.pad(content, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        painted = self.model.transformer(padded, self.model.affines(code))
        return painted[:, :, :height, :width].clamp(0, 1)


class Encoder(nn.Module):
    """The style encoder as one graph."""

    def __init__(self, model: StylePrediction) -> None:
        super().__init__()
        self.model = model

    def forward(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self.model.encode_style(style)


def export(config: ExportConfig) -> int:
    """Export, check, report the differences, and return the exit code.

    Raises:
        ExportMismatch: a float32 file differs from PyTorch by more than `TOLERANCE`; nothing is left behind.
        ModelFileError, WeightsNotFoundError, ImageError: a file is missing or broken.
        ValueError: the model is of a kind that is not exported.
    """
    model = load_model(config.model)
    if not isinstance(model, StylePrediction) or not isinstance(model.transformer, LightTransformer):
        raise ValueError(f"--model {config.model}: only `light` and `normalization-network` models are exported")
    pictures = [resize(load_image(path), config.calibration_size) for path in find_images(config.int8)]
    model = model.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    facts = describe(model, config)
    report: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="arbitrary_nst-") as scratch:
        folder = Path(scratch)
        write_graphs(model, folder, config.opset, facts)
        report |= check(model, folder)
        if max(report.values()) > TOLERANCE:
            raise ExportMismatch(f"{config.model}: the exported files differ from PyTorch: {report}")
        if config.float16:
            write_half(folder / STYLIZER, folder / "stylizer_float16.onnx")
            report |= {"stylizer_float16.onnx": painted_difference(model, folder / "stylizer_float16.onnx")}
        if pictures:
            codes = [model.encode_style(picture) for picture in pictures]
            write_int8(folder / STYLIZER, folder / "stylizer_int8.onnx", pictures, codes)
            report |= {"stylizer_int8.onnx": painted_difference(model, folder / "stylizer_int8.onnx", pictures, codes)}
        for name in report:
            with written_whole(config.output / name) as partial:
                partial.write_bytes((folder / name).read_bytes())
    for name, difference in report.items():
        kind = "largest" if name in (STYLE_ENCODER, STYLIZER) else "mean"
        size = (config.output / name).stat().st_size / 1e6
        print(f"{config.output / name}: {size:.1f} MB, {kind} difference from PyTorch {difference:.2g}")
    return 0


def describe(model: StylePrediction, config: ExportConfig) -> dict[str, Any]:
    """What a user of the files must know, kept inside them."""
    name, card = model_card(model_file(config.model))
    return {
        "model": name,
        "card": card,
        "identity": astuple(model_identity(config.model)),
        "version": __version__,
        "opset": config.opset,
        "code_size": model.code_size,
        "style_size": STYLE_SIZE,
        "smallest_painting": SMALLEST_PAINTING,
        "smallest_photo": model.transformer.minimum,
    }


def write_graphs(model: StylePrediction, folder: Path, opset: int, facts: dict[str, Any]) -> None:
    """Style encoder and stylizer, in float32."""
    batch = torch.export.Dim("batch", min=1, max=1024)

    def sides(least: int) -> dict[int, Any]:
        limits = {"min": least, "max": LARGEST_SIDE}
        return {0: batch, 2: torch.export.Dim("height", **limits), 3: torch.export.Dim("width", **limits)}

    content, code = torch.rand(2, 3, 131, 99), torch.rand(2, model.code_size)
    write_graph(
        Painter(model),
        {"content": (content, sides(model.transformer.minimum)), "code": (code, {0: batch})},
        "stylized",
        folder / STYLIZER,
        opset,
        facts,
    )
    painting = {"style": (content, sides(SMALLEST_PAINTING))}
    write_graph(Encoder(model), painting, "code", folder / STYLE_ENCODER, opset, facts)


def write_graph(
    module: nn.Module, inputs: dict[str, tuple[Tensor, Any]], output: str, path: Path, opset: int, facts: dict[str, Any]
) -> None:
    """One module as one ONNX file, with the facts as metadata."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own internals
        program: Any = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple(shape for _, shape in inputs.values()),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props["arbitrary_nst"] = json.dumps(facts, default=str)
    program.save(str(path))


def check(model: StylePrediction, folder: Path) -> dict[str, float]:
    """Largest difference of each file from PyTorch over several batches and sizes."""
    differences = {STYLIZER: 0.0, STYLE_ENCODER: 0.0}
    sessions = {name: open_session(folder / name) for name in differences}
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in SIZES:
        image = torch.rand(batch, 3, height, width, generator=generator)
        code = model.encode_style(image)
        pairs = {
            STYLIZER: (model(image, code).clamp(0, 1), run(sessions[STYLIZER], content=image, code=code)),
            STYLE_ENCODER: (code, run(sessions[STYLE_ENCODER], style=image)),
        }
        for name, (ours, theirs) in pairs.items():
            differences[name] = max(differences[name], (ours - theirs).abs().max().item())
    return differences


def painted_difference(
    model: StylePrediction,
    path: Path,
    pictures: Sequence[Float[Tensor, "1 3 _ _"]] = (),
    codes: Sequence[Float[Tensor, "1 D"]] = (),
) -> float:
    """Mean difference of a stylizer's pictures from PyTorch, over the given ones or noise."""
    if not pictures:
        pictures = [torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))]
        codes = [model.encode_style(picture) for picture in pictures]
    session = open_session(path)
    differences = [
        (model(picture, code).clamp(0, 1) - run(session, content=picture, code=code)).abs().mean().item()
        for picture, code in zip(pictures, codes, strict=True)
    ]
    return float(np.mean(differences))


def write_half(source: Path, target: Path) -> None:
    """The same graph in float16, with float32 at its ends."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(target))


def write_int8(source: Path, target: Path, pictures: Sequence[Tensor], codes: Sequence[Tensor]) -> None:
    """The same graph with convolutions in int8, calibrated on pictures, each in the style of the next."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples: Iterator[dict[str, np.ndarray]] = iter(
                {"content": picture.numpy(), "code": codes[(index + 1) % len(codes)].numpy()}
                for index, picture in enumerate(pictures)
            )

        def get_next(self) -> Any:
            return next(self.samples, None)

    prepared = target.with_suffix(".prepared")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
