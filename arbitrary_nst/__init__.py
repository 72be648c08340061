"""Any photo in the style of any painting: neural style transfer in one pass, trained and measured."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arbitrary_nst.errors import ImageError, OutputError
    from arbitrary_nst.image import load_image, load_picture, save_image
    from arbitrary_nst.stylization.stylizer import Stylizer, blend_codes

__version__ = "0.2.0"

_HOMES = {
    "ImageError": "errors",
    "OutputError": "errors",
    "load_image": "image",
    "load_picture": "image",
    "save_image": "image",
    "Stylizer": "stylization.stylizer",
    "blend_codes": "stylization.stylizer",
}

__all__ = ["ImageError", "OutputError", "Stylizer", "blend_codes", "load_image", "load_picture", "save_image"]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import arbitrary_nst` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'arbitrary_nst' has no attribute '{name}'")
    return getattr(import_module(f"arbitrary_nst.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Names for completion: the public ones too, which are not imported yet."""
    return sorted({*globals(), *__all__})
