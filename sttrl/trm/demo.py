"""The demonstration: Sudoku 4x4 from nothing; a trunk trained on 20 rules; its adaptation to 4 rules that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sttrl.trm.adapt import Mode, Wish, adapt, is_data_set
from sttrl.trm.config import CONFIGS, read_config
from sttrl.trm.data.arguments import BuildDemo
from sttrl.trm.data.commands import build
from sttrl.trm.data.demo import HELD_OUT_NAME, RULES_NAME, SUDOKU_NAME
from sttrl.trm.opened import Say
from sttrl.trm.train import train

MODES: Final[tuple[Mode, ...]] = ("embeddings", "lora", "full")
ADAPTING_STEPS: Final = 200
ADAPTING: Final = ("lr=2e-3", "puzzle_emb_lr=1e-2")
"""Settings of the adaptations (derived)."""


@dataclass(frozen=True, kw_only=True)
class DemoRuns:
    """The run folders of the demonstration."""

    sudoku: Path
    rules: Path
    adapted: dict[Mode, Path]


def run_demo(out: Path, seed: int, say: Say) -> DemoRuns:
    """Do what is not done yet. Raises DataError, UsageError, DivergedError and JournalError."""
    data = out / "data"
    if not all(is_data_set(data / name) for name in (SUDOKU_NAME, RULES_NAME, HELD_OUT_NAME)):
        say(build(BuildDemo(output_dir=data, seed=seed)))
    say("Sudoku 4x4, from nothing")
    sudoku = train(read_config(CONFIGS / "demo_sudoku.yaml", settings(data / SUDOKU_NAME, out / "sudoku", seed)), say)
    say("20 rules")
    rules = train(read_config(CONFIGS / "demo_rules.yaml", settings(data / RULES_NAME, out / "rules", seed)), say)
    adapted: dict[Mode, Path] = {}
    for mode in MODES:
        say(f"4 rules never seen: {mode}")
        wish = Wish(
            checkpoint=rules,
            data=str(data / HELD_OUT_NAME),
            mode=mode,
            steps=ADAPTING_STEPS,
            chunk=None,
            num_aug=0,
            out=out / f"adapted-{mode}",
            config=None,
            settings=(*ADAPTING, f"seed={seed}"),
        )
        adapted[mode] = adapt(wish, say).folders[0]
    return DemoRuns(sudoku=sudoku, rules=rules, adapted=adapted)


def settings(data: Path, folder: Path, seed: int) -> list[str]:
    """Where a run of the demonstration reads and writes."""
    return [f"data_paths={data}", f"checkpoint_path={folder}", f"seed={seed}"]
