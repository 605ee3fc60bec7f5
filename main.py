"""The program: `python main.py --help` says what it can do."""

import sys

from sttrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
