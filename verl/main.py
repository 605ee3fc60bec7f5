"""The same program as ../main.py, for `cd verl && python main.py`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    # `python main.py` puts this folder first on the path; the repository takes its place.
    sys.path[:] = [str(here.parent), *(entry for entry in sys.path if Path(entry).resolve() not in (here, here.parent))]

    from sttrl.cli import main

    sys.exit(main())
