"""The stand-in engine of the fault tests makes small runs for tests here too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "fault"))
