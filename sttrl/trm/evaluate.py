"""Evaluation: every sequence takes all its supervision steps, then cells, halting head and votes are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sttrl.errors import UsageError
from sttrl.ledger.seeds import seed_of
from sttrl.trm.data.loader import Batches
from sttrl.trm.kept_outputs import KeptOutputs
from sttrl.trm.losses import act_loss, logged_eval
from sttrl.trm.model import Batch, Outputs, TinyRecursiveModel
from sttrl.trm.ranks import Ranks
from sttrl.trm.stochastic import rollouts
from sttrl.trm.train_config import TrainConfig
from sttrl.trm.votes import ArcVotes, Ballot

PLAIN, PTRM, SHUFFLED = "plain", "ptrm", "shuffled identities"
"""The rows of an evaluation: as the original evaluates; PTRM's rollouts; with each puzzle under the identity of another one."""
MOST_SHOWN = 6
"""Puzzles that are kept to be shown."""

Tokens = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A puzzle to show: its identity, and the tokens (S,) of what is asked, what the model wrote and what is right."""

    identity: int
    input: list[int]
    prediction: list[int]
    answer: list[int]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The result of one row of an evaluation.

    ``sets``: for each set of the data the original's metrics. ``right``: for each set how many sequences are right in every cell, and how
    many there are. ``ballot``: the votes; None where there are none.
    """

    sets: dict[str, dict[str, float]]
    right: dict[str, tuple[int, int]]
    ballot: Ballot | None
    shown: list[Shown]

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers by one name each: ``all.exact_accuracy``, ``ARC/pass@2``. A set of which no answer is known has none."""
        known = {name: metrics for name, metrics in self.sets.items() if self.right[name][1]}
        flat = {f"{name}.{metric}": value for name, metrics in known.items() for metric, value in metrics.items()}
        return flat | (self.ballot.metrics if self.ballot is not None else {})


class Evaluator:
    """Evaluates a model on the test split of a data set. Votes may be carried from one evaluation to the next (``aggregated_voting``)."""

    def __init__(self, config: TrainConfig, batches: Batches, votes: ArcVotes | None, ranks: Ranks) -> None:
        self.config, self.batches, self.ranks = config, batches, ranks
        chosen = {PLAIN: True, PTRM: config.rollouts > 0, SHUFFLED: config.shuffle_identities}
        self.rows = tuple(row for row, is_on in chosen.items() if is_on)
        identities = batches.shuffled_identities(config.seed) if config.shuffle_identities else None
        if identities is not None and (identities == np.arange(len(identities))).all():
            raise UsageError("shuffle_identities, and no two tasks have rows of the puzzle table to exchange.", "Leave it out.")
        self.votes = {row: None if votes is None else votes.merge([]) for row in self.rows}

    def evaluate(self, model: TinyRecursiveModel, step: int) -> tuple[dict[str, Evaluated], KeptOutputs]:
        """Every row, and the arrays that ``eval_save_outputs`` asks for."""
        was_training, kept = model.training, KeptOutputs(self.config.eval_save_outputs)
        model.eval()
        try:
            return {row: self._row(model, row, step, kept if row == PLAIN else KeptOutputs(())) for row in self.rows}, kept
        finally:
            model.train(was_training)

    def votes_to_keep(self) -> dict[str, Any]:
        """The votes of this process that later evaluations count too, by row; none unless votes aggregate."""
        if not self.config.votes_aggregate:
            return {}
        return {row: vote.state() for row, vote in self.votes.items() if vote is not None}

    def restore(self, votes: Mapping[str, Any]) -> None:
        """Go on from what `votes_to_keep` gave."""
        for row, state in votes.items():
            vote = self.votes.get(row)
            if vote is not None:
                self.votes[row] = vote.merge([state])

    @torch.inference_mode()
    def _row(self, model: TinyRecursiveModel, row: str, step: int, kept: KeptOutputs) -> Evaluated:
        vote, blank = self.votes[row], self.batches.metadata.blank_identifier_id
        identities = self.batches.shuffled_identities(self.config.seed) if row == SHUFFLED else None
        seed = seed_of(self.config.seed, "trm", "ptrm", step, 0)
        generator = torch.Generator(device=self.ranks.device).manual_seed(seed) if row == PTRM else None
        sums: dict[str, dict[str, float]] = {}
        right: dict[str, list[int]] = {}
        shown: list[Shown] = []
        if vote is not None:
            vote.begin_round()
        for set_name, arrays, _ in self.batches.test():
            asked = {name: torch.from_numpy(value).to(self.ranks.device) for name, value in arrays.items()}
            outputs, metrics, preds = self._passed(model, asked, identities, generator)
            own = sums.setdefault(set_name, dict.fromkeys(metrics, 0.0))
            for name, value in metrics.items():
                own[name] += float(value)
            counted = right.setdefault(set_name, [0, 0])
            counted[0] += int(metrics["exact_accuracy"])
            counted[1] += int(metrics["count"])
            said = {name: getattr(outputs, name) for name in ("logits", "q_halt_logits", "q_continue_logits")}
            kept.add({**asked, **said, "preds": preds})
            tokens = {name: as_array(value) for name, value in {**asked, "preds": preds, "q": outputs.q_halt_logits}.items()}
            if vote is not None:
                vote.update(tokens["inputs"], tokens["preds"], tokens["puzzle_identifiers"], tokens["q"])
            shown += shown_of(tokens, blank if vote is not None else None)[: MOST_SHOWN - len(shown)]
        return self._joined(sums, right, vote, shown)

    def _passed(
        self, model: TinyRecursiveModel, asked: Batch, identities: Tokens | None, generator: torch.Generator | None
    ) -> tuple[Outputs, dict[str, torch.Tensor], torch.Tensor]:
        """All supervision steps of a batch: the outputs, the metrics as sums, and the cells (b, S) of the last step."""
        batch = asked if identities is None else {**asked, "puzzle_identifiers": renamed(asked["puzzle_identifiers"], identities)}
        if generator is not None:
            found = rollouts(
                model,
                batch,
                rollouts=self.config.rollouts,
                noise=self.config.rollout_noise,
                generator=generator,
                share=(self.ranks.rank, self.ranks.count),
            )
            carry, outputs = found.carry, found.outputs
        else:
            carry = model.initial_carry(batch)
            for _ in range(model.arch.halt_max_steps_eval or model.arch.halt_max_steps):
                carry, outputs = model(carry, batch)
        _, metrics, preds = act_loss(outputs, carry, self.config.arch.loss.loss_type)
        return outputs, metrics, preds

    def _joined(
        self, sums: Mapping[str, Mapping[str, float]], right: Mapping[str, Sequence[int]], vote: ArcVotes | None, shown: list[Shown]
    ) -> Evaluated:
        """What all processes found, together."""
        found = self.ranks.gathered({"sums": dict(sums), "right": dict(right), "vote": None if vote is None else vote.state()})
        names = list(dict.fromkeys(name for part in found for name in part["sums"]))
        total = {name: added([part["sums"][name] for part in found if name in part["sums"]]) for name in names}
        return Evaluated(
            sets={name: logged_eval(metrics) for name, metrics in total.items()},
            right={name: tuple(sum(part["right"][name][at] for part in found if name in part["right"]) for at in (0, 1)) for name in names},
            ballot=None if vote is None else vote.merge([part["vote"] for part in found]).result(),
            shown=shown,
        )


def added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums by name."""
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def shown_of(tokens: Mapping[str, Tokens], blank: int | None) -> list[Shown]:
    """The sequences of a batch to show, without padding (``blank``: its identity, where each puzzle has one of its own)."""
    rows = range(min(len(tokens["inputs"]), MOST_SHOWN))
    return [
        Shown(
            identity=int(tokens["puzzle_identifiers"][row]),
            input=tokens["inputs"][row].tolist(),
            prediction=tokens["preds"][row].tolist(),
            answer=tokens["labels"][row].tolist(),
        )
        for row in rows
        if tokens["puzzle_identifiers"][row] != blank and (blank is not None or (tokens["labels"][row] >= 0).any())
    ]


def renamed(ids_B: torch.Tensor, identities: Tokens) -> torch.Tensor:
    """Puzzle identities replaced by others."""
    return torch.from_numpy(identities).to(ids_B.device)[ids_B.long()].to(ids_B.dtype)


def as_array(value: torch.Tensor) -> Tokens:
    """A tensor as an array on the host."""
    return np.asarray((value.float() if value.is_floating_point() else value).cpu().numpy())
