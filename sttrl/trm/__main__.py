"""``python -m sttrl.trm COMMAND ...``, which torchrun can start: the same as ``main.py trm COMMAND ...``."""

import sys

from sttrl.cli import main

if __name__ == "__main__":
    sys.exit(main(["trm", *sys.argv[1:]]))
