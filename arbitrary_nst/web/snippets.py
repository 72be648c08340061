"""The current settings as a command and as Python: both make the same picture."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from arbitrary_nst.optimization.jobs import PRESETS, OptimizeConfig
from arbitrary_nst.stylization.jobs import StylizeConfig
from arbitrary_nst.stylization.style_files import is_saved

LIMITS = ("max_pixels",)
"""Options that decide what is refused, and nothing in the picture."""

HOMES = {
    "arbitrary_nst": ("Stylizer", "blend_codes", "load_image", "load_picture", "save_image"),
    "arbitrary_nst.image": ("resize",),
    "arbitrary_nst.image.masks": ("load_mask", "weighted_masks"),
    "arbitrary_nst.stylization.style_files": ("load_style",),
}
"""Where the names come from that programs call."""


def command_line(config: StylizeConfig | OptimizeConfig) -> str:
    """The command, with every option whose value is not the default. Files are called by their names alone."""
    name = "stylize" if isinstance(config, StylizeConfig) else "optimize"
    words = [f"python -m arbitrary_nst {name}"]
    for option, value in _options(config):
        values = value if isinstance(value, tuple) else (value,)
        words.append(f"--{option.replace('_', '-')} " + " ".join(shlex.quote(_shown(each)) for each in values))
    lines, width = [words[0]], 100
    for word in words[1:]:
        if len(lines[-1]) + len(word) > width:
            lines[-1] += " \\"
            lines.append("    " + word)
        else:
            lines[-1] += " " + word
    return "\n".join(lines)


def _options(config: StylizeConfig | OptimizeConfig) -> Iterator[tuple[str, Any]]:
    for option in fields(config):
        value = getattr(config, option.name)
        if isinstance(config, OptimizeConfig) and option.name == "optimization":
            yield from _changes(value, PRESETS[config.preset][option.name])
        elif option.name not in LIMITS and value != (None if option.default is MISSING else option.default):
            yield option.name, value


def _changes(value: Any, default: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass that have another value than in `default`, those within it among them."""
    for option in fields(value):
        new, old = getattr(value, option.name), getattr(default, option.name)
        if is_dataclass(new):
            yield from _changes(new, old)
        elif new != old:
            yield option.name, new


def _shown(value: Any) -> str:
    if not isinstance(value, Path):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if is_saved(value) and value.suffix == "":
        return str(value)
    return f"./{value.name}" if value.name.startswith(("-", "gallery:")) else value.name


def _quoted(value: Any) -> str:
    return json.dumps(_shown(value), ensure_ascii=False)


def python_code(config: StylizeConfig) -> str:
    """The program. Its picture may differ from the command's by one level where sizes or soft masks are rounded."""
    given = [
        f"{name}={_quoted(getattr(config, name))}"
        for name in ("device", "precision")
        if getattr(config, name) != "auto"
    ]
    photo, model = _quoted(config.content[0]), [_quoted(config.model)] * (config.model != "light")
    alpha = "photo.alpha"
    lines = [
        f"stylizer = Stylizer.from_pretrained({', '.join(model + given)})",
        f"photo = load_picture({photo})",
        "codes = [",
        *(f"    {_code(style, config)}," for style in config.style),
        "]",
    ]
    content, options = "photo.rgb", [f"alpha={config.alpha:g}"] * (config.alpha != 1)
    if config.content_size is not None:
        content = f"resize(photo.rgb, {config.content_size})"
        alpha = f"None if photo.alpha is None else resize(photo.alpha, {config.content_size})"
    if config.mask:
        masks = ", ".join(f"load_mask({_quoted(mask)})" for mask in config.mask)
        shares = [float(f"{weight:g}") for weight in config.style_weights or [1.0] * len(config.mask)]
        lines += [f"masks = weighted_masks([{masks}], {shares})", "code = torch.cat(codes)"]
        options.append("masks=masks")
    else:
        weights = [float(f"{weight:g}") for weight in config.style_weights]
        lines.append(f"code = blend_codes(codes, {weights})" if weights else "code = codes[0]")
    if config.preserve_color == "luminance":
        options.append('preserve_color="luminance"')
    lines.append(f"picture = stylizer({', '.join([content, 'code', *options])})")
    lines.append(f"save_image(picture, {_quoted(config.output)}, {alpha}, exif=photo.exif)")
    body = "\n".join(lines)
    return f"{_imports(body)}\n\n{body}\n"


def _code(style: Path, config: StylizeConfig) -> str:
    """The expression that gives a style's code."""
    path = _quoted(style)
    if is_saved(style):
        model = f", {_quoted(config.model)}" if config.model != "light" else ""
        return f"load_style({path}{model}).code"
    scale = f", scale={config.style_scale:g}" if config.style_scale != 1 else ""
    like = ", like=photo.rgb" if config.preserve_color == "covariance" else ""
    return f"stylizer.encode_style(load_image({path}){scale}{like})"


def _imports(body: str) -> str:
    """The imports of what a program calls."""
    lines = ["import torch\n"] if "torch.cat(" in body else []
    for module, names in HOMES.items():
        used = [name for name in names if f"{name}(" in body or f"{name}." in body]
        lines += [f"from {module} import {', '.join(used)}"] if used else []
    return "\n".join(lines)
