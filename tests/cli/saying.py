"""What the tests of the command line share: the one line that a wrong command ends on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sttrl.cli import main

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
HEAVY = ("torch", "ray", "vllm", "verl", "transformers", "numpy", "sympy", "yaml")
DATA = next((path for path in (os.environ.get("STTRL_DATA"), ROOT.parent / "shared" / "data") if path and Path(path).is_dir()), None)

Said = pytest.CaptureFixture[str]


def complaint(capsys: Said, *arguments: str, code: int) -> str:
    """Run the program, and return the one line it ends on."""
    assert main(arguments) == code
    said = capsys.readouterr()
    progress = ("converting ", "starting ")
    lines = [line for line in said.err.splitlines() if not line.endswith("questions to do") and not line.startswith(progress)]
    assert len(lines) == 1 and lines[0].startswith("error: "), said.err
    assert "Traceback" not in said.err and not said.out
    assert not set(lines[0]) & set("│╭╮╰╯─") and "---" not in lines[0], "the box around it is gone"
    return lines[0]
