"""Whether a change leaves every result as it is: results.jsonl of every method and vote, byte for byte, before and after.

    python benchmarks/same_results.py --save before.json       # in the code before the change
    python benchmarks/same_results.py --against before.json    # in the code after it, on the same machine

The runs are small and ``--deterministic``, on the tests' tiny model and the real engine. Results depend on the machine, so two of them
are compared only where both were made on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
BASE: dict[str, Any] = {
    "dataset": "arithmetic-demo", "limit": 3, "steps": 2, "n_votes": 16, "n_train": 16, "val_samples": 4, "max_response_tokens": 8,
    "ties": "first", "lr": 0.01, "dtype": "float32", "lora_rank": 8, "lora_alpha": 16, "deterministic": True,
}  # fmt: skip
TTRL = {"adaptation_method": "ttrl", "steps": None, "epochs": 2, "train_batch_size": 2, "eval_every": 2, "checkpoint_every": 2}
OTHER = {"ties": "abstain", "voting_function": "majority"}
RUNS: tuple[dict[str, Any], ...] = (
    {"adaptation_method": "none", "ties": "abstain", "steps": None, "lr": None},
    {},
    {"voting_function": "energy"},
    {"voting_function": "confidence"},
    {"voting_function": "confidence", "confidence": "deepconf_tail"},
    {"voting_function": "confidence", "confidence": "self_certainty"},
    {"reward": "frequency"},
    {"reward": "neg_entropy"},
    {"adv_estimator": "remax"},
    {"adv_estimator": "gae"},
    {"ppo_epochs": 2, "mini_batches": 2},
    {"continuous": True},
    {"lora_rank": 0, "lr": 0.001},
    {"min_agreement": 0.5},
    {"max_flip_rate": 0.0, "steps": 4},
    TTRL,
    {**TTRL, "voting_function": "energy"},
    {"adaptation_method": "ttft"},
    {"adaptation_method": "ttft", "voting_function": "energy"},
    {"adaptation_method": "slot", "lr": 0.3, **OTHER},
    {"adaptation_method": "memo", **OTHER},
    {"adaptation_method": "memo", "memo_form": "token", "question_views": 3, **OTHER},
)


def main() -> int:
    """Make the runs; keep their hashes, or compare them with those that were kept."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--save", type=Path, help="where the hashes go")
    parser.add_argument("--against", type=Path, help="hashes of the code before")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = hashes(Path(folder))
    if given.save:
        given.save.write_text(json.dumps(found, indent=1) + "\n")
    before = json.loads(given.against.read_text()) if given.against else found
    differing = [name for name in sorted(before.keys() | found.keys()) if before.get(name) != found.get(name)]
    for name in sorted(before.keys() | found.keys()):
        print(f"{'DIFFERS' if name in differing else 'same   '} {name}")
    print(f"{len(before) - len(differing)} of {len(before)} runs have the same results")
    return 1 if differing else 0


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of results.jsonl and of the rollouts of every run, by name."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_model import make_tiny_model

    model = make_tiny_model(folder / "tiny")
    file = folder / "all.yaml"
    file.write_text(yaml.safe_dump({"base": {**BASE, "model": str(model)}, "runs": [dict(run) for run in RUNS]}))
    command = [sys.executable, str(ROOT / "main.py"), "sweep", str(file), "--output_dir", str(folder / "runs")]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    runs = sorted((folder / "runs").glob("*/*/results.jsonl"))
    return {str(run.parent.name): digest([run, *sorted(run.parent.glob("rollouts/*"))]) for run in runs}


def digest(files: list[Path]) -> str:
    """SHA-256 of the files' bytes."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
