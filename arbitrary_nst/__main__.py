"""python -m arbitrary_nst COMMAND"""

import sys

from arbitrary_nst.cli import main

if __name__ == "__main__":
    sys.exit(main())
