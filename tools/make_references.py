"""Contact sheet of the optimizations beside one pass: example photos in example styles.

It takes a minute or more for each picture on a processor, and needs VGG-16 up to relu5_1, which torchvision downloads.

python tools/make_references.py --output docs/references.jpg
"""

import argparse
from collections import deque
from dataclasses import replace
from pathlib import Path

from arbitrary_nst import Stylizer, load_image, save_image
from arbitrary_nst.image import resize
from arbitrary_nst.image.figures import contact_sheet
from arbitrary_nst.optimization.loop import optimize
from arbitrary_nst.optimization.presets import PRESETS
from arbitrary_nst.runtime.devices import chosen_device, chosen_precision, keep_freed_memory

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIDE = 384

PAIRS = {
    "chelsea": "impasto_dusk",
    "rocket": "woodcut_wave",
    "astronaut": "pointillist_bay",
    "coffee": "charcoal_hatching",
}

CONFIGS = {
    "kolkin2022": replace(PRESETS["kolkin2022"], steps=(60, 50, 40, 18, 8)),
    "kolkin2019": replace(PRESETS["kolkin2019"], steps=(100,)),
    "gatys2016": replace(PRESETS["gatys2016"], scales=(0.5, 1.0), steps=(50, 30)),
}
"""Presets with fewer steps: as many as the blind comparisons in docs/results.md had, and half of kolkin2019's own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    keep_freed_memory()
    stylizer = Stylizer.from_pretrained()
    precision = chosen_precision("auto", chosen_device(None))
    rows = []
    for photo_name, style_name in PAIRS.items():
        photo = resize(load_image(EXAMPLES / "content" / f"{photo_name}.jpg"), SIDE)
        style = load_image(EXAMPLES / "styles" / f"{style_name}.jpg")
        row = [photo, style, stylizer(photo, stylizer.encode_style(style))]
        for config in CONFIGS.values():
            (last,) = deque(optimize(photo, [style], config, precision=precision), maxlen=1)
            row.append(last.image)
        rows.append([image[0] for image in row])
    sheet = contact_sheet(rows, ["photo", "painting", "light", *CONFIGS], cell_size=240)
    save_image(sheet[None], output, quality=85)


if __name__ == "__main__":
    main()
