"""Flat pairs: files that hold examples of one rule, in no particular roles (re-arc, the SNU course). How such a file becomes tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sttrl.ledger.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class FlatPairs:
    """How a file of pairs becomes tasks. A task takes the next pairs in order: first its demonstrations, then one pair for its test input.

    The test pair's output is the solution. Without ``seed`` the order is that of the file; with it, it is drawn for each file by itself,
    so that it does not depend on the other files.
    """

    sizes: tuple[int, ...] = (3,)
    """Demonstrations of a task. With several numbers, the tasks of a file take them in turn."""
    tasks_per_file: int = 1
    """Tasks made of a file. One: its id is the file's; several: ``{id}-0``, ``{id}-1`` and so on."""
    seed: int | None = None
    """Seed of the order. With it, a file whose pairs are used up is put into a new order; within a task no pair comes twice."""
    drop_easiest: float = 0.0
    """Share of the pairs that is left out first: those with the lowest ``pso_difficulties`` in re-arc's metadata.json."""

    def __post_init__(self) -> None:
        """Raises ValueError for values without a meaning."""
        if not self.sizes or min(self.sizes) < 0:
            raise ValueError("sizes: give at least one number, none below 0")
        if self.tasks_per_file < 1:
            raise ValueError("tasks_per_file: give 1 or more")
        if not 0 <= self.drop_easiest < 1:
            raise ValueError("drop_easiest: give a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The pairs of one task, by their place in the file from 0."""

    id: str
    demos: tuple[int, ...]
    test: int


def draw_tasks(rule: FlatPairs, file_id: str, pairs: int, difficulties: Sequence[float] | None = None) -> tuple[Draw, ...]:
    """The tasks of a file with this many pairs; ``difficulties``: one a pair. Raises ValueError if the pairs do not suffice."""
    places = _hard_enough(rule, pairs, difficulties)
    lengths = [rule.sizes[number % len(rule.sizes)] + 1 for number in range(rule.tasks_per_file)]
    needed = max(lengths) if rule.seed is not None else sum(lengths)
    if len(places) < needed:
        raise ValueError(f"{len(places)} pairs to use, and {needed} are needed")
    chosen = _chosen(rule, file_id, places, lengths)
    ids = [file_id] if rule.tasks_per_file == 1 else [f"{file_id}-{number}" for number in range(rule.tasks_per_file)]
    return tuple(Draw(id=name, demos=pairs_[:-1], test=pairs_[-1]) for name, pairs_ in zip(ids, chosen, strict=True))


def _hard_enough(rule: FlatPairs, pairs: int, difficulties: Sequence[float] | None) -> list[int]:
    """The places of the pairs that are kept, in the order of the file."""
    dropped = int(pairs * rule.drop_easiest)
    if not dropped:
        return list(range(pairs))
    if difficulties is None or len(difficulties) != pairs:
        raise ValueError(f"{'no' if difficulties is None else len(difficulties)} difficulties for {pairs} pairs in metadata.json")
    easiest = sorted(range(pairs), key=lambda place: (difficulties[place], place))[:dropped]
    return sorted(set(range(pairs)) - set(easiest))


def _chosen(rule: FlatPairs, file_id: str, places: list[int], lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The pairs of one task after another."""
    if rule.seed is None:
        ends = np.cumsum(lengths).tolist()
        yield from (tuple(places[end - length : end]) for end, length in zip(ends, lengths, strict=True))
        return
    generator = np.random.default_rng(seed_of(rule.seed, file_id, "flat pairs", 0, 0))
    order: list[int] = []
    for length in lengths:
        if len(order) < length:
            order = [int(place) for place in generator.permutation(places)]
        taken, order = order[:length], order[length:]
        yield tuple(taken)
