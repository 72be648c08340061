"""A model that was exported to ONNX, in the place of the one that it was exported from."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.errors import ModelFileError, requires
from arbitrary_nst.models.blocks import pad_to_multiple
from arbitrary_nst.models.serialization import STYLE_ENCODER, STYLIZER
from arbitrary_nst.nn.octaves import with_noise

METADATA = "arbitrary_nst"
"""Key of our JSON in the metadata of an exported file."""


@dataclass(frozen=True)
class ExportMetadata:
    """Metadata of an exported file; the exporter writes more, for people to read."""

    model: str
    card: dict[str, Any]
    identity: tuple[str, str]
    """Name and SHA-256 of the weights, see `ModelIdentity`."""
    code_size: int
    view_size: int
    """Numbers of a style code, and of the part of it that one octave uses."""
    smallest_painting: int
    smallest_photo: int
    """Least sides in pixels; smaller pictures are padded."""


class OnnxModel(nn.Module):
    """Style encoder and stylizer as onnxruntime runs them; a `StyleModel` without parameters.

    Args:
        path: the folder that `python -m arbitrary_nst export` wrote, or one of its stylizers, such as
            stylizer_float16.onnx; the style encoder is the one beside it.

    Raises:
        ModelFileError: files are missing, are not ours or of different models, or onnxruntime cannot read them.
        MissingPackageError: onnxruntime is not installed.
    """

    coarse_to_fine = True

    def __init__(self, path: Path) -> None:
        super().__init__()
        stylizer = path / STYLIZER if path.is_dir() else path
        encoder = stylizer.with_name(STYLE_ENCODER)
        self._encoder = open_session(encoder, ("style",))
        self._stylizer = open_session(stylizer, ("content", "guide", "view"))
        metadata = read_metadata(self._stylizer, stylizer)
        if read_metadata(self._encoder, encoder).identity != metadata.identity:
            raise ModelFileError(f"{stylizer}: {STYLE_ENCODER} beside it is of another model; export both again")
        self.code_size, self._view_size = metadata.code_size, metadata.view_size
        self._smallest = {"style": metadata.smallest_painting, "content": metadata.smallest_photo}

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The codes of paintings in [0, 1]."""
        style = pad_to_multiple(style, 1, self._smallest["style"])
        return run(self._encoder, style=style)

    def forward(
        self,
        content: Float[Tensor, "B 3 H W"],
        code: Float[Tensor, "#B D"],
        guide: Float[Tensor, "B 3 H W"] | None = None,
        first: bool = True,
    ) -> Float[Tensor, "B 3 H W"]:
        """One octave of photos in [0, 1] in the styles of the codes, as `CoarseToFine` paints it."""
        height, width = content.shape[2:]
        view = code.split(self._view_size, 1)[0 if first else 1].expand(len(content), -1)
        content, guide = (
            pad_to_multiple(image, 1, self._smallest["content"])
            for image in (content, with_noise(content) if guide is None else guide)
        )
        return run(self._stylizer, content=content, guide=guide, view=view)[:, :, :height, :width]


def run(session: Any, **inputs: Tensor) -> Tensor:
    """The first output of an onnxruntime session, on the CPU, for inputs anywhere."""
    arrays = {name: value.float().contiguous().cpu().numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, arrays)[0])


def read_metadata(session: Any, path: Path) -> ExportMetadata:
    """The metadata of an exported file. Raises ModelFileError where it is missing or damaged."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(ExportMetadata).validate_json(session.get_modelmeta().custom_metadata_map.get(METADATA, ""))
    except ValidationError as error:
        places = ", ".join(sorted({".".join(map(str, problem["loc"])) or "JSON" for problem in error.errors()}))
        raise ModelFileError(f"{path}: not exported by this package, or damaged (its metadata: {places})") from error


def open_session(path: Path, inputs: Sequence[str] = ()) -> Any:
    """An onnxruntime session on the processor, with as many threads as torch has.

    Args:
        inputs: names of inputs that the file must have.

    Raises MissingPackageError where onnxruntime is not installed, ModelFileError where there is no such file or it is
    not ours.
    """
    with requires("an exported model", "export"):
        import onnxruntime
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file. Write it with `python -m arbitrary_nst export`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own kinds
        raise ModelFileError(f"{path}: onnxruntime cannot read it ({error})") from error
    found = [entry.name for entry in session.get_inputs()]
    if METADATA not in session.get_modelmeta().custom_metadata_map or not set(inputs) <= set(found):
        wanted = f"; its inputs are {', '.join(found)}, not {', '.join(inputs)}" if inputs else ""
        raise ModelFileError(f"{path}: not exported by this package{wanted}")
    return session
