"""python -m arbitrary_nst COMMAND"""

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str] | None = None) -> int:
    """Run `commands.main`, and return its exit code. Ctrl-C while it is being imported is answered as later."""
    try:
        from arbitrary_nst.commands import main

        return main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
