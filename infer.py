"""Stylize photos: python infer.py --content PHOTO... --style PAINTING... --output FOLDER"""

import sys

from arbitrary_nst.__main__ import run

if __name__ == "__main__":
    sys.exit(run(["stylize", *sys.argv[1:]]))
