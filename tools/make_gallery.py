"""The gallery that ships: codes of the paintings that gallery.tsv lists, by the weights that ship.

To be run again whenever these weights change; it takes seconds.

python tools/make_gallery.py --paintings FOLDER

FOLDER holds the files of the first column; the pictures themselves are not part of this repository.
"""

import argparse
import csv
from pathlib import Path

from arbitrary_nst import Stylizer, load_image
from arbitrary_nst.models.serialization import model_identity
from arbitrary_nst.stylization.style_files import GALLERY_FILE, SavedStyle, save_gallery

LIST = Path(__file__).with_name("gallery.tsv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paintings", type=Path, required=True)
    parser.add_argument("--list", type=Path, default=LIST, help="file, name, title, artist, year")
    parser.add_argument("--output", type=Path, default=GALLERY_FILE)
    options = parser.parse_args()
    stylizer, identity, styles = Stylizer.from_pretrained(device="cpu"), model_identity(), []
    with options.list.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            code = stylizer.encode_style(load_image(options.paintings / row["file"]))
            provenance = {key: row[key] for key in ("title", "artist", "year")}
            styles.append(SavedStyle(row["name"], code, identity, provenance))
    save_gallery(styles, options.output)
    print(f"{options.output}: {len(styles)} styles of the model {identity}")


if __name__ == "__main__":
    main()
