"""The state of a training on disk: everything that the next step depends on, so that an interrupted run goes on as if it never stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sttrl.errors import DataError, JournalError, error_text, write_fault
from sttrl.ledger.files import make_folder, recover_folder, settle_folder, unwritable
from sttrl.trm.data.orders import Position
from sttrl.trm.model import Carry
from sttrl.trm.ranks import Ranks
from sttrl.trm.steps import Learner
from sttrl.trm.weights import tensor_to_write

STATE = "state"
"""The folder of the state, in the run folder."""
SHARED = "shared.safetensors"
"""Weights, averages and optimisers, which all processes have alike."""
LATENTS = ("z_H", "z_L")
"""The tensors of the batch in flight that have the number type of the forward pass."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Where a training stands.

    ``position``: in the data. ``finished``: the last step after which an evaluation and its checkpoint were written; None: there is none.
    ``lines``: how many lines of metrics.jsonl were written up to here; later lines are of steps that are taken again.
    """

    position: Position = Position()
    finished: int | None = None
    lines: int = 0


def save_state(folder: Path, learner: Learner, reached: Reached, ranks: Ranks, votes: Mapping[str, Any]) -> None:
    """Write the state of all processes; the old state is replaced when the new one is complete. Raises `JournalError`.

    ``votes``: those of this process that later evaluations count too.
    """
    target = folder / STATE
    try:
        _save(target, folder / f".{STATE}.new", learner, reached, ranks, votes)
    except (OSError, SafetensorError) as error:
        fault = write_fault(error)
        if fault is None:
            raise
        raise unwritable(target, fault) from error


def _save(target: Path, temporary: Path, learner: Learner, reached: Reached, ranks: Ranks, votes: Mapping[str, Any]) -> None:
    if ranks.is_first:
        shutil.rmtree(temporary, ignore_errors=True)
        make_folder(temporary)
    ranks.wait()
    save_file(own_tensors(learner), temporary / own_name(ranks))
    (temporary / votes_name(ranks)).write_text(json.dumps(votes) + "\n", encoding="utf-8")
    if ranks.is_first:
        save_file(shared_tensors(learner), temporary / SHARED)
        facts = {"step": learner.step, "ranks": ranks.count, "reached": dataclasses.asdict(reached)}
        (temporary / "state.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    ranks.wait()
    if ranks.is_first:
        settle_folder(temporary, target)
    ranks.wait()


def has_state(folder: Path, ranks: Ranks) -> bool:
    """Whether a run folder has a state to go on from. One that was being replaced when the run was killed counts too."""
    if ranks.is_first:
        recover_folder(folder / STATE)
    ranks.wait()
    return (folder / STATE / "state.json").is_file()


def load_state(folder: Path, learner: Learner, ranks: Ranks) -> tuple[Reached, dict[str, Any]]:
    """Bring a learner to the saved state. Returns where it stands, and this process's votes.

    Raises `JournalError` for a state that cannot be used.
    """
    target = folder / STATE
    try:
        facts = json.loads((target / "state.json").read_text(encoding="utf-8"))
        if facts["ranks"] != ranks.count:
            raise JournalError(
                f"{target} was written by {facts['ranks']} processes, and this run has {ranks.count}.", "Use as many, or another run_name."
            )
        restore(learner, load_file(target / SHARED), load_file(target / own_name(ranks)), ranks)
        learner.step = int(facts["step"])
        reached = Reached(**facts["reached"] | {"position": Position(**facts["reached"]["position"])})
        return reached, json.loads((target / votes_name(ranks)).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, DataError) as error:
        raise JournalError(
            f"{target} cannot be read: {error_text(error, first_line=True)}.",
            "Delete the run folder to start over, or use another run_name.",
        ) from error


def restore(learner: Learner, shared: dict[str, torch.Tensor], own: dict[str, torch.Tensor], ranks: Ranks) -> None:
    """Give a learner everything that `shared_tensors` and `own_tensors` took."""
    learner.model.load_state_dict(part(shared, "model"))
    for name, optimiser in parts_of(learner).items():
        optimiser.load_state_dict(part(shared, name))
    learner.generator.set_state(own.pop("generator"))
    dtype = learner.model.dtype  # that of a CPU and of a GPU may differ
    own = {name: value.to(dtype) if name in LATENTS else value for name, value in own.items()}
    learner.carries = carries_of(own, learner.config.gradient_accumulation, ranks)


def own_name(ranks: Ranks) -> str:
    """The file of a process: the batch in flight, and its random state."""
    return f"rank_{ranks.rank}.safetensors"


def votes_name(ranks: Ranks) -> str:
    """The file of the votes of a process."""
    return f"rank_{ranks.rank}.votes.json"


def parts_of(learner: Learner) -> dict[str, Any]:
    """What has a state besides the model."""
    named = {"table": learner.table, "trunk": learner.trunk, "ema": learner.ema}
    return {name: value for name, value in named.items() if value is not None}


def shared_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """Weights, averages and optimisers, by flat names."""
    states = {"model": learner.model.state_dict()} | {name: value.state_dict() for name, value in parts_of(learner).items()}
    return {f"{name}/{key}": tensor_to_write(value) for name, state in states.items() for key, value in state.items()}


def own_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """The batch in flight, its parts together, and the random state, by name."""
    fields = [flat_carry(carry) for carry in learner.carries]
    whole = {name: torch.cat([tensor_to_write(each[name]) for each in fields]) for name in (fields[0] if fields else ())}
    return {"generator": learner.generator.get_state(), **whole}


def flat_carry(carry: Carry) -> dict[str, torch.Tensor]:
    """A carry's tensors by name."""
    latents = {"z_H": carry.z_H, "z_L": carry.z_L, "steps": carry.steps, "halted": carry.halted}
    return latents | {f"current.{name}": value for name, value in carry.current.items()}


def carries_of(tensors: Mapping[str, torch.Tensor], parts: int, ranks: Ranks) -> list[Carry]:
    """The batch in flight in so many parts; none before the first step."""
    if not tensors:
        return []
    split = {name: value.to(ranks.device).chunk(parts) for name, value in tensors.items()}
    return [
        Carry(
            z_H=split["z_H"][number],
            z_L=split["z_L"][number],
            steps=split["steps"][number],
            halted=split["halted"][number],
            current={name.removeprefix("current."): value[number] for name, value in split.items() if name.startswith("current.")},
        )
        for number in range(parts)
    ]


def part(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of one part, without its name."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
