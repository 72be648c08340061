"""Styles as files: a code, where it comes from and the model that it belongs to; and the gallery that ships.

A style file (`.style`) is safetensors: the tensor `code`, and in the header `format`, `name`, `model` and `weights`
(the model's identity) and `provenance` in JSON. The gallery is one such file with a tensor for each of its styles.

Shapes: D numbers of a style code.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from arbitrary_nst import __version__
from arbitrary_nst.errors import StyleFileError
from arbitrary_nst.models.serialization import ModelIdentity, model_file, model_identity
from arbitrary_nst.runtime.files import (
    SUFFIXES,
    PathLike,
    Results,
    atomic_write,
    find_all,
    result_names,
    unicode_name,
)

STYLE_SUFFIX = ".style"

GALLERY = "gallery:"
"""What a name of the gallery begins with where a painting could stand: gallery:starry-night."""

GALLERY_FILE = Path(str(files("arbitrary_nst"))) / "assets" / "gallery" / "light.safetensors"

FORMAT, GALLERY_FORMAT = "arbitrary_nst style 1", "arbitrary_nst gallery 1"

_LARGEST_CODE = 2**20


@dataclass(frozen=True)
class SavedStyle:
    """A style that needs its painting no more."""

    name: str
    code: Float[Tensor, "1 D"]
    model: ModelIdentity
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """The painting's file with its size and SHA-256, how it was looked at, when and with which version; for a mix, what
    it was mixed of; in the gallery title, artist and year. Whatever JSON can hold."""


# Files


def save_style(style: SavedStyle, path: Path) -> None:
    """Write a style file, whole or not at all. Raises StyleFileError where it could not be read again."""
    if path.suffix.lower() != STYLE_SUFFIX:
        raise StyleFileError(f"{path}: a style file's name must end in {STYLE_SUFFIX}")
    header = {"format": FORMAT, "name": _text(style.name), "provenance": json.dumps(dict(style.provenance))}
    _write({"code": style.code}, header, style.model, path)


def read_style(source: PathLike) -> SavedStyle:
    """A style file, or a style of the gallery (`gallery:NAME`), of whatever model. Raises StyleFileError."""
    name, path = gallery_name(source), Path(source)
    if name is not None:
        return _gallery_style(name)
    header, codes = _read(path, FORMAT)
    try:
        provenance = dict(json.loads(header.get("provenance", "{}")))
        return SavedStyle(header["name"], codes["code"], _model(header), provenance)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise StyleFileError(f"{path}: a damaged style file ({error!r}); save the style again") from error


def load_style(source: PathLike, model: str | Path = "light") -> SavedStyle:
    """Read a style as `read_style` does, for a model: its name or its file, as in `load_model`.

    Raises StyleFileError where there is no such style or where it was made with another model.
    """
    style, own = read_style(source), model_identity(model)
    if style.model != own:
        name = gallery_name(source)
        remedy = f"choose the model that it was made with, or save it again from its painting with --model {model}"
        if name is not None:
            remedy = "the gallery belongs to the model that ships; save the style from the painting itself"
        raise StyleFileError(
            f"{source if name is None else GALLERY + name}: was made with the model {style.model}, but this is the "
            f"model {own} of {model_file(model)}; {remedy}"
        )
    return style


def painting_provenance(path: Path, extent: Sequence[int], size: int, scale: float) -> dict[str, Any]:
    """Provenance of a painting in a style file; (height, width) = `extent`, encoded with this size and scale."""
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(2**20):
            digest.update(chunk)
    height, width = extent
    seen = {"file": _text(path.name), "sha256": digest.hexdigest(), "width": width, "height": height}
    return {**seen, "style_size": size, "style_scale": scale, **made_now()}


def made_now() -> dict[str, str]:
    """The date and the version of the package."""
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "version": __version__}


# Names


def find_styles(paths: Iterable[PathLike], results: Results | None = None) -> list[tuple[str, Path]]:
    """Names of styles, each with its painting, its style file, or `gallery:/NAME`, in the order of `paths`.

    A style stands there as often as it is named, and a name stands for one style. Folders and patterns give style files
    too, and `gallery:NAME`, where NAME may be a pattern, gives styles of the gallery. Names are those of
    `style_names`. Raises ImageError or StyleFileError for whatever gives nothing.

    Args:
        results: as in `find_images`.
    """
    found: list[tuple[Path, Path]] = []
    for of_gallery, group in groupby(paths, lambda path: gallery_name(path) is not None):
        if of_gallery:
            names = [match for path in group for match in _gallery_matches(gallery_name(path) or "")]
            found += [(Path(GALLERY, name), Path(name)) for name in names]
        else:
            found += find_all(group, (*SUFFIXES, STYLE_SUFFIX), results)
    names = style_names(dict(found))
    return [(names[path], path) for path, _ in found]


def style_names(places: Mapping[Path, Path]) -> dict[Path, str]:
    """A name for each style, which names of results have: `result_names`, after those of subfolders and a dash.

    Args:
        places: as in `result_names`.
    """
    return result_names({path: Path("-".join(place.parts)) for path, place in places.items()})


def is_saved(path: Path) -> bool:
    """Return True for a style file or a style of the gallery, False for a painting."""
    return path.suffix.lower() == STYLE_SUFFIX or gallery_name(path) is not None


def gallery_name(path: PathLike) -> str | None:
    """NAME of `gallery:NAME`; None where it is a path to a file."""
    start, colon, name = str(path).partition(":")
    return name.lstrip("/\\") if colon and start + colon == GALLERY else None


# The gallery


@cache
def gallery() -> dict[str, SavedStyle]:
    """The styles that ship with the package, by name."""
    header, codes = _read(GALLERY_FILE, GALLERY_FORMAT)
    model = _model(header)
    return {
        name: SavedStyle(name, codes[name], model, provenance)
        for name, provenance in json.loads(header["styles"]).items()
    }


def save_gallery(styles: Sequence[SavedStyle], path: Path = GALLERY_FILE) -> None:
    """Write styles of one model as the gallery."""
    header = {"format": GALLERY_FORMAT, "styles": json.dumps({s.name: dict(s.provenance) for s in styles})}
    _write({style.name: style.code for style in styles}, header, styles[0].model, path)


def _gallery_matches(name: str) -> list[str]:
    matches = [known for known in gallery() if fnmatchcase(known, name)]
    if not matches:
        _gallery_style(name)
    return matches


def _gallery_style(name: str) -> SavedStyle:
    if name not in gallery():
        close = get_close_matches(name, gallery(), 1)
        hint = f"did you mean {GALLERY}{close[0]}? " if close else ""
        raise StyleFileError(f"{GALLERY}{name}: no such style in the gallery; {hint}`style list` tells their names")
    return gallery()[name]


# Bytes


def _text(name: str) -> str:
    """The name of a file as text: bytes that are not UTF-8 become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _write(codes: Mapping[str, Tensor], header: dict[str, str], model: ModelIdentity, path: Path) -> None:
    from safetensors.torch import save

    tensors = {name: code.detach().to("cpu", torch.float32, copy=True).contiguous() for name, code in codes.items()}
    for name, code in tensors.items():
        if code.ndim != 2 or len(code) != 1 or not code.isfinite().all():
            raise StyleFileError(f"{path}: '{name}' is not a code of shape (1, D) with finite numbers")
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors, {**header, "model": model.name, "weights": model.weights}))


def _read(path: Path, expected: str) -> tuple[dict[str, str], dict[str, Float[Tensor, "1 D"]]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StyleFileError(f"{path}: no such style file; check the path")
    try:
        with unicode_name(path) as readable, safe_open(readable, framework="pt") as file:
            header = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if header.get("format") != expected:
                raise StyleFileError(
                    f"{path}: not a style file that this version knows (its format is '{header.get('format')}')"
                )
            if any(len(shape) != 2 or shape[0] != 1 or shape[1] > _LARGEST_CODE for shape in shapes.values()):
                raise StyleFileError(f"{path}: a damaged style file (codes of shape {shapes}); save the style again")
            codes = {name: file.get_tensor(name).float() for name in shapes}
    except (SafetensorError, OSError) as error:
        raise StyleFileError(f"{path}: not a style file ({error!r}); save the style again") from error
    if not all(code.isfinite().all() for code in codes.values()):
        raise StyleFileError(f"{path}: a damaged style file (its code is not finite); save the style again")
    return header, codes


def _model(header: Mapping[str, str]) -> ModelIdentity:
    return ModelIdentity(header["model"], header["weights"])
