"""The data of a run: batches of both splits, and the vote on the tasks that are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sttrl.errors import UsageError
from sttrl.trm.augmentations import read_identifier
from sttrl.trm.data.format import has_split, read_identifiers, read_split, read_test_puzzles
from sttrl.trm.data.loader import Batches
from sttrl.trm.data.noise import GridNoise
from sttrl.trm.data.sources import merged_identifiers
from sttrl.trm.ranks import Ranks
from sttrl.trm.train_config import TrainConfig
from sttrl.trm.votes import ArcVotes

Say = Callable[[str], None]
"""Says a line of progress."""


def unheard(line: str) -> None:
    """Says nothing: what all processes but the first do."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a run. ``test`` and ``votes``: None if there is no test split, or no vote. ``identifiers``: the names of the rows of the
    puzzle table."""

    train: Batches
    test: Batches | None
    votes: ArcVotes | None
    test_puzzles: Mapping[str, Any]
    identifiers: list[str]


def open_data(config: TrainConfig, ranks: Ranks, say: Say) -> Data:
    """The batches of both splits. Raises DataError for data that cannot be used."""
    check_parts(config, ranks)
    folders = [Path(folder) for folder in config.data_paths]
    tested = [Path(folder) for folder in config.data_paths_test or config.data_paths]
    with_test = [folder for folder in tested if has_split(folder, "test")]
    identifiers = merged_identifiers(folders)
    chosen = config.tasks or None
    if not with_test:
        say(f"{', '.join(map(str, tested))}: no test split, so there is no evaluation")
    train = Batches(
        folders,
        "train",
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        epochs_per_iteration=config.epochs_per_iteration,
        rank=ranks.rank,
        ranks=ranks.count,
        max_examples_per_puzzle=config.max_examples_per_puzzle,
        identifiers=identifiers,
        only_tasks=chosen,
        without_tasks=tested_tasks(with_test) if config.leave_out_test_demos else (),
        noise=GridNoise(probability=config.model_arch.grid_noise_prob, fraction=config.model_arch.grid_noise_fraction),
    )
    puzzles: dict[str, Any] = {}
    for folder in with_test if config.evaluators else []:
        puzzles |= {task: puzzle for task, puzzle in read_test_puzzles(folder).items() if chosen is None or task in chosen}
    test = test_batches(config, with_test, identifiers, ranks) if with_test else None
    return Data(
        train=train,
        test=test,
        votes=None if test is None else votes_of(config, identifiers, puzzles, test.metadata.blank_identifier_id),
        test_puzzles=puzzles,
        identifiers=identifiers,
    )


def check_parts(config: TrainConfig, ranks: Ranks) -> None:
    """Raises UsageError if processes and parts of a step cannot share a batch equally."""
    share, parts = ranks.share(config.global_batch_size, "global_batch_size"), config.gradient_accumulation
    if share % parts:
        raise UsageError(
            f"gradient_accumulation is {parts}, and each of {ranks.count} processes has {share} sequences of a batch.",
            "Use a divisor of these, or another global_batch_size.",
        )


def test_batches(config: TrainConfig, folders: Sequence[Path], identifiers: list[str], ranks: Ranks) -> Batches:
    """The batches of the test splits."""
    ranks.share(config.eval_batch_size, "eval_global_batch_size")
    return Batches(
        folders,
        "test",
        seed=config.seed,
        global_batch_size=config.eval_batch_size,
        rank=ranks.rank,
        ranks=ranks.count,
        max_augmentations=config.eval_max_augmentations,
        max_examples_per_puzzle=config.max_eval_examples_per_puzzle,
        identifiers=identifiers,
        only_tasks=config.tasks or None,
    )


def tested_tasks(folders: Sequence[Path]) -> frozenset[str]:
    """The tasks that are evaluated, by name."""
    names: set[str] = set()
    for folder in folders:
        _, sets = read_split(folder, "test")
        identifiers = read_identifiers(folder)
        names |= {read_identifier(identifiers[row]).task for split in sets.values() for row in np.unique(split.puzzle_identifiers).tolist()}
    return frozenset(names)


def votes_of(config: TrainConfig, identifiers: list[str], puzzles: Mapping[str, Any], blank_identifier_id: int) -> ArcVotes | None:
    """The vote on ARC tasks that the configuration asks for; None without one, or without tasks."""
    if not config.evaluators or not puzzles:
        return None
    chosen = config.evaluators[0]
    return ArcVotes(
        identifiers,
        puzzles,
        submission_K=chosen.submission_K,
        pass_Ks=chosen.pass_Ks,
        aggregated_voting=config.votes_aggregate,
        blank_identifier_id=blank_identifier_id,
    )
