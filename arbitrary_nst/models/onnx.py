"""A model that was exported to ONNX, in the place of the one that it was exported from."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from arbitrary_nst.models.blocks import pad_to_multiple
from arbitrary_nst.models.files import ModelFileError

STYLE_ENCODER, STYLIZER = "style_encoder.onnx", "stylizer.onnx"
"""Names of the two files in the folder of an exported model."""


class OnnxModel(nn.Module):
    """Style encoder and stylizer as onnxruntime runs them; a `StyleModel` without parameters.

    Args:
        folder: what `python -m arbitrary_nst export` wrote.

    Raises:
        ModelFileError: files are missing, are not ours, or onnxruntime cannot read them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._encoder = open_session(folder / STYLE_ENCODER)
        self._stylizer = open_session(folder / STYLIZER)
        facts = facts_of(self._stylizer)
        self.code_size: int = facts["code_size"]
        self._smallest = {"style": facts["smallest_painting"], "content": facts["smallest_photo"]}

    def encode_style(self, style: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The codes of paintings in [0, 1]."""
        style = pad_to_multiple(style, 1, self._smallest["style"])
        return run(self._encoder, style=style)

    def forward(self, content: Float[Tensor, "B 3 H W"], code: Float[Tensor, "#B D"]) -> Float[Tensor, "B 3 H W"]:
        """Photos in [0, 1] in the styles of the codes."""
        height, width = content.shape[2:]
        padded = pad_to_multiple(content, 1, self._smallest["content"])
        return run(self._stylizer, content=padded, code=code.expand(len(content), -1))[:, :, :height, :width]


def run(session: Any, **inputs: Tensor) -> Tensor:
    """The first output of an onnxruntime session, on the CPU, for inputs anywhere."""
    arrays = {name: value.float().contiguous().cpu().numpy() for name, value in inputs.items()}
    return torch.from_numpy(session.run(None, arrays)[0])


def facts_of(session: Any) -> dict[str, Any]:
    """What a file says of itself: model, card, identity, sizes."""
    return json.loads(session.get_modelmeta().custom_metadata_map["arbitrary_nst"])


def open_session(path: Path) -> Any:
    """An onnxruntime session on the processor, with as many threads as torch has.

    Raises ModelFileError where there is no such file, it is not ours, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelFileError(f"{path}: ONNX files need onnxruntime: pip install 'arbitrary_nst[export]'") from error
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file. Write it with `python -m arbitrary_nst export`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own kinds
        raise ModelFileError(f"{path}: onnxruntime cannot read it ({error})") from error
    if "arbitrary_nst" not in session.get_modelmeta().custom_metadata_map:
        raise ModelFileError(f"{path}: not exported by this package")
    return session
