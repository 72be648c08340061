"""Models as ONNX files, a style encoder and a stylizer checked against PyTorch, and as a site; weights to the hub.

Shapes: B batch, D numbers of a style code, H x W pixels. Images are float RGB in [0, 1], channels first.
"""

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst import __version__
from arbitrary_nst.errors import ExportMismatch, ModelFileError, UsageError, requires
from arbitrary_nst.image import load_image, resize
from arbitrary_nst.models import CoarseToFine
from arbitrary_nst.models.light import VIEW_SIZE
from arbitrary_nst.models.onnx import METADATA, open_session, run
from arbitrary_nst.models.serialization import (
    STYLE_ENCODER,
    STYLIZER,
    ModelIdentity,
    load_model,
    model_card,
    model_file,
    model_identity,
)
from arbitrary_nst.models.style_prediction import SMALLEST_PAINTING
from arbitrary_nst.nn.octaves import with_noise
from arbitrary_nst.runtime.files import atomic_write, check_output_folder, find_images, refuse_overwriting
from arbitrary_nst.runtime.hub import is_repository, upload
from arbitrary_nst.site import write_site
from arbitrary_nst.stylization.options import STYLE_SIZE

TOLERANCE = 1e-3
"""Largest difference from PyTorch, in numbers of a picture in [0, 1] and of a style code, that is let pass."""

STYLIZER_FLOAT16, STYLIZER_INT8 = "stylizer_float16.onnx", "stylizer_int8.onnx"
"""Names of the stylizers of lower precision, beside the others."""

SIZES = ((1, 80, 80), (2, 131, 97), (1, 256, 384))
"""Batch, height and width at which an export is checked."""

LARGEST_SIDE = 1 << 15


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a model as ONNX files, a style encoder and a stylizer for any batch and any size, or as a site that paints
    in the visitor's browser, or upload its weights."""

    output: Path | None = None
    """Folder for style_encoder.onnx and stylizer.onnx."""
    web: Path | None = None
    """Folder for a static site that runs the model in the visitor's browser. Its runtime, 33 MB, is downloaded once,
    from the npm registry."""
    hub: str = ""
    """Upload model.safetensors, and its model card as README.md, to this repository of the Hugging Face hub:
    OWNER/NAME or OWNER/NAME@BRANCH. A new repository is public."""
    model: str = "light"
    """A model that ships with the package, a .safetensors file or the folder of a training run, or OWNER/NAME on the
    Hugging Face hub."""
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
            raise UsageError(f"--opset {self.opset}: must be 18 to 23")
        if self.calibration_size < SMALLEST_PAINTING:
            raise UsageError(f"--calibration-size {self.calibration_size}: must be at least {SMALLEST_PAINTING}")
        if self.output is None and self.web is None and not self.hub:
            raise UsageError(
                "--output, --web or --hub: name a folder for ONNX files or for a site, or a repository for the weights"
            )
        if (self.float16 or self.int8) and self.output is None:
            raise UsageError("--float16, --int8: need --output, a folder for these files")
        if self.hub and not is_repository(self.hub):
            raise UsageError(f"--hub {self.hub}: must be OWNER/NAME or OWNER/NAME@BRANCH")


class StylizerGraph(nn.Module):
    """One octave of the stylizer as one graph: padding to the network's multiple included, whatever the size."""

    def __init__(self, model: CoarseToFine) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, content: Float[Tensor, "B 3 H W"], guide: Float[Tensor, "B 3 H W"], view: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B 3 H W"]:
        height, width = content.shape[2:]
        multiple = self.model.transformer.tiling.multiple
        border = (0, -width % multiple, 0, -height % multiple)
        content, guide = (F.pad(image, border, mode="replicate") for image in (content, guide))
        return self.model.stylize_octave(content, guide, view)[:, :, :height, :width].clamp(0, 1)


class StyleEncoderGraph(nn.Module):
    """The style encoder as one graph."""

    def __init__(self, model: CoarseToFine) -> None:
        super().__init__()
        self.model = model

    def forward(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self.model.encode_style(style)


def export(config: ExportConfig) -> int:
    """Export or upload, and return the exit code.

    Raises:
        ExportMismatch: a float32 file differs from PyTorch by more than `TOLERANCE`; nothing is left behind.
        ModelFileError, WeightsNotFoundError, ImageError: a file is missing or broken.
        HubError: the weights cannot be uploaded.
        MissingPackageError: a package of the extra "export" is not installed, or the site's runtime not downloadable.
        UsageError: the model is of a kind that is not exported, or the output is no folder.
        OutputError: the output cannot be written.
    """
    if config.output is not None or config.web is not None:
        export_files(config)
    if config.hub:
        file = model_file(config.model)
        if file.suffix != ".safetensors":
            raise UsageError(f"--model {config.model}: is exported already; upload the model that it was made from")
        card = hub_card(file, config.hub)
        print(f"uploading {file} ({file.stat().st_size / 1e6:.1f} MB) to {config.hub}", flush=True)
        print(upload(file, card, config.hub))
    return 0


def export_files(config: ExportConfig) -> None:
    """Write the ONNX files of a model, and the site that runs them, and print their differences from PyTorch.

    Raises what `export` raises.
    """
    with requires("export", "export"):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    for folder in (config.output, config.web):
        if folder is not None:
            check_output_folder(folder)
    photos = find_images(config.int8, results={path: "" for path in (config.output, config.web) if path is not None})
    if config.output is not None:
        written = (STYLE_ENCODER, STYLIZER, STYLIZER_FLOAT16, STYLIZER_INT8)
        refuse_overwriting([model_file(config.model), *photos], (config.output / name for name in written))
    model = load_model(config.model)
    if not isinstance(model, CoarseToFine):
        raise UsageError(f"--model {config.model}: only `light` and `normalization-network` models are exported")
    pictures = [resize(load_image(path), config.calibration_size) for path in photos]
    model = model.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    metadata = describe(model, config)
    print_step = StepPrinter(3 + config.float16 + bool(pictures) + (config.web is not None))
    report: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="arbitrary_nst-") as scratch:
        folder = Path(scratch)
        write_graphs(model, folder, config.opset, metadata, print_step)
        print_step("comparing with PyTorch")
        report |= check(model, folder)
        if max(report.values()) > TOLERANCE:
            raise ExportMismatch(f"{config.model}: the exported files differ from PyTorch: {report}")
        if config.float16:
            print_step(f"writing {STYLIZER_FLOAT16}")
            write_half(folder / STYLIZER, folder / STYLIZER_FLOAT16)
            report |= {STYLIZER_FLOAT16: painted_difference(model, folder / STYLIZER_FLOAT16)}
        if pictures:
            print_step(f"writing {STYLIZER_INT8}, calibrated on {len(pictures)} pictures")
            codes = [model.encode_style(picture) for picture in pictures]
            write_int8(folder / STYLIZER, folder / STYLIZER_INT8, pictures, codes)
            report |= {STYLIZER_INT8: painted_difference(model, folder / STYLIZER_INT8, pictures, codes)}
        if config.web is not None:
            print_step("writing the site")
            write_site(config.web, config.model, model, folder, metadata)
        if config.output is not None:
            keep_files(folder, report, config.output, model_identity(config.model))
    if config.web is not None:
        print(f"{config.web}: put it on any web server, or try it with `python -m http.server -d {config.web}`")


def keep_files(folder: Path, report: Mapping[str, float], output: Path, identity: ModelIdentity) -> None:
    """Put the files of the report into the output and print their differences from PyTorch."""
    for name in report:
        with atomic_write(output / name) as partial:
            partial.write_bytes((folder / name).read_bytes())
    remove_other_models(output, identity)
    for name, difference in report.items():
        kind = "largest" if name in (STYLE_ENCODER, STYLIZER) else "mean"
        size = (output / name).stat().st_size / 1e6
        print(f"{output / name}: {size:.1f} MB, {kind} difference from PyTorch {difference:.2g}")


class StepPrinter:
    """Progress lines on stderr: the number of the step, the seconds since the first, what begins now."""

    def __init__(self, count: int) -> None:
        self._count, self._done, self._start = count, 0, time.perf_counter()

    def __call__(self, words: str) -> None:
        self._done += 1
        seconds = time.perf_counter() - self._start
        print(f"[{self._done}/{self._count}, {seconds:.0f} s] {words}", file=sys.stderr, flush=True)


def remove_other_models(folder: Path, identity: ModelIdentity) -> None:
    """Remove stylizers of lower precision that an earlier export of another model left in the folder."""
    for name in (STYLIZER_FLOAT16, STYLIZER_INT8):
        with suppress(ModelFileError):  # not written by this package
            if (folder / name).is_file() and model_identity(folder / name) != identity:
                (folder / name).unlink()
                print(f"{folder / name}: removed, it is of another model")


def hub_card(file: Path, repository: str) -> str:
    """The README.md of a repository: the card beside the model file, or else the metadata in its header."""
    from huggingface_hub import ModelCardData

    name, card = model_card(file)
    pages = [file.with_suffix(".md"), file.with_name("model_card.md"), file.with_name("README.md")]
    page = next((page.read_text(encoding="utf-8") for page in pages if page.is_file()), "")
    if page.startswith("---"):  # from the hub, and complete
        return page
    if not page:
        rows = "".join(f"| {key} | {str(value).replace('|', ' ')} |\n" for key, value in card.items())
        page = f"# Model card: {name}\n\n| | |\n|---|---|\n{rows}"
    data = ModelCardData(
        library_name="arbitrary_nst", pipeline_tag="image-to-image", tags=["style-transfer", "neural-style-transfer"]
    )
    use = f'from arbitrary_nst import Stylizer\n\nstylizer = Stylizer.from_pretrained("{repository}")\n'
    return f"---\n{data.to_yaml()}\n---\n\n{page.rstrip()}\n\n## Use\n\n```python\n{use}```\n"


def describe(model: CoarseToFine, config: ExportConfig) -> dict[str, Any]:
    """Metadata that users of the files need, kept inside the files."""
    name, card = model_card(model_file(config.model))
    return {
        "model": name,
        "card": card,
        "identity": astuple(model_identity(config.model)),
        "version": __version__,
        "opset": config.opset,
        "code_size": model.code_size,
        "view_size": VIEW_SIZE,
        "style_size": STYLE_SIZE,
        "smallest_painting": SMALLEST_PAINTING,
        "smallest_photo": model.transformer.tiling.minimum,
    }


def write_graphs(
    model: CoarseToFine,
    folder: Path,
    opset: int,
    metadata: dict[str, Any],
    print_step: Callable[[str], None] = lambda words: None,
) -> None:
    """Write style encoder and stylizer in float32; `print_step` is called before each."""
    batch = torch.export.Dim("batch", min=1, max=1024)

    def sides(least: int) -> dict[int, Any]:
        limits = {"min": least, "max": LARGEST_SIDE}
        return {0: batch, 2: torch.export.Dim("height", **limits), 3: torch.export.Dim("width", **limits)}

    content, view = torch.rand(2, 3, 131, 99), torch.rand(2, VIEW_SIZE)
    extent = sides(model.transformer.tiling.minimum)
    print_step(f"writing {STYLIZER}")
    write_graph(
        StylizerGraph(model),
        {"content": (content, extent), "guide": (content.flip(3), extent), "view": (view, {0: batch})},
        "stylized",
        folder / STYLIZER,
        opset,
        metadata,
    )
    painting = {"style": (content, sides(SMALLEST_PAINTING))}
    print_step(f"writing {STYLE_ENCODER}")
    write_graph(StyleEncoderGraph(model), painting, "code", folder / STYLE_ENCODER, opset, metadata)


def write_graph(
    module: nn.Module,
    inputs: dict[str, tuple[Tensor, Any]],
    output: str,
    path: Path,
    opset: int,
    metadata: dict[str, Any],
) -> None:
    """One module as one ONNX file, with its metadata."""
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
    program.model.metadata_props[METADATA] = json.dumps(metadata, default=str)
    program.save(str(path))


def check(model: CoarseToFine, folder: Path) -> dict[str, float]:
    """Largest difference of each file from PyTorch over several batches and sizes."""
    differences = {STYLIZER: 0.0, STYLE_ENCODER: 0.0}
    sessions = {name: open_session(folder / name) for name in differences}
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in SIZES:
        image = torch.rand(batch, 3, height, width, generator=generator)
        code, guide = model.encode_style(image), image.flip(2)
        pairs = {
            STYLIZER: (
                model(image, code, guide, first=False).clamp(0, 1),
                run(sessions[STYLIZER], content=image, guide=guide, view=code[:, VIEW_SIZE:]),
            ),
            STYLE_ENCODER: (code, run(sessions[STYLE_ENCODER], style=image)),
        }
        for name, (ours, theirs) in pairs.items():
            differences[name] = max(differences[name], (ours - theirs).abs().max().item())
    return differences


def painted_difference(
    model: CoarseToFine,
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
        (
            model(picture, code, picture).clamp(0, 1)
            - run(session, content=picture, guide=picture, view=code[:, :VIEW_SIZE])
        )
        .abs()
        .mean()
        .item()
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
                {
                    "content": picture.numpy(),
                    "guide": with_noise(picture).numpy(),
                    "view": codes[(index + 1) % len(codes)][:, :VIEW_SIZE].numpy(),
                }
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
