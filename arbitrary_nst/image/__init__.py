"""Files to tensors and back: the one place that knows bytes, EXIF, colour profiles and transparency.

Everywhere else an image is float, RGB (sRGB), (B, 3, H, W), in [0, 1].
"""

from PIL import (  # noqa: F401 (importing a plugin registers its format in `Image.OPEN` and `Image.SAVE`)
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from arbitrary_nst.image.reading import (
    DEFAULT_MAX_PIXELS,
    Picture,
    PixelPicture,
    Source,
    load_image,
    load_picture,
    load_pixel_picture,
    load_pixels,
)
from arbitrary_nst.image.resizing import fitted_size, resize, resize_pixels, shrink_pixels
from arbitrary_nst.image.writing import encode_jpeg, save_image, save_pixels

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "Picture",
    "PixelPicture",
    "Source",
    "encode_jpeg",
    "fitted_size",
    "load_image",
    "load_picture",
    "load_pixel_picture",
    "load_pixels",
    "resize",
    "resize_pixels",
    "save_image",
    "save_pixels",
    "shrink_pixels",
]
