"""Train a style model: python train.py --content-data PATH... --style-data PATH... --run-dir FOLDER"""

import sys

from arbitrary_nst.__main__ import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
