"""The examples of docs/library.md about sessions, on the real engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import blocks

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
SESSIONS = [block for block in blocks("library", "python") if "Session(" in block]


@pytest.mark.parametrize("block", SESSIONS, ids=["sync", "async"])
def test_an_example_runs_outside_the_project_and_leaves_nothing(block: str, tmp_path: Path) -> None:
    check = (
        ""
        if "asyncio" in block
        else """
assert answer.right is not None and answer.text and answer.base.text and answer.votes and len(texts) == len(plain) == 3
assert answer.tokens.sampled > 0 and answer.status == "done" and len(answers) == 2
assert (answer.adapter is None) == (answer.tokens.trained == 0)
"""
    )
    script = tmp_path / "example.py"
    script.write_text(block + check)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and sorted(path.name for path in tmp_path.iterdir()) == ["example.py"]
