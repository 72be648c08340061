"""Stylize photos: python infer.py --content PHOTO... --style PAINTING... --output FOLDER"""

import sys

from arbitrary_nst.cli import main

if __name__ == "__main__":
    sys.exit(main(["stylize", *sys.argv[1:]]))
