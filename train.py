"""Train a style model: python train.py --content-data PATH... --style-data PATH... --run-dir FOLDER"""

import sys

from arbitrary_nst.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
