"""The order of training examples: which groups, variants and examples go into each batch.

One iteration goes through the groups of every set ``epochs`` times, each time in a new order; of each group it takes one variant, and of
this variant all examples, in a new order. What does not fit into a batch is dropped, and so are the groups at the end that fill none.

``original`` (the default): groups and variants follow ``Philox(seed + iteration)``, iterations numbered from 1, as in TinyRecursiveModels.
There the order of examples comes from numpy's global state, which nothing seeds; here each batch has a generator of its own, so that
training goes on from any position without repeating the draws before it. There a second data set is read when the first is finished; here
each batch is from one of them, with chances by the groups that are left, as in Trelis' fork.

``fork``: the draws of Trelis' fork (November 2025), one by one. No setting chooses it; it is there for comparisons. Going on from a
position repeats the draws of its iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sttrl.trm.data.format import Array, Split

OrderName = Literal["original", "fork"]

Draws = np.random.Generator | np.random.RandomState


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where training stands in the data: after ``batch`` batches of the present iteration, which used ``groups`` entries of each order.

    ``iteration``: finished iterations. `dataclasses.asdict` makes JSON of it, and ``Position(**values)`` reads that.
    """

    iteration: int = 0
    groups: tuple[int, ...] = ()
    batch: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the order depends on. ``groups``: the numbers of the groups of each set that are used, ascending.

    ``examples``: draws the examples in place of the generators of the batches; for comparisons only.
    """

    sets: Sequence[Split]
    groups: Sequence[Array]
    seed: int
    batch_size: int
    epochs: int
    max_examples: int | None = None
    examples: np.random.RandomState | None = None

    def shuffled(self, number: int, draws: np.random.Generator) -> Array:
        """The groups of a set in the order of an iteration."""
        groups = self.groups[number]
        return np.concatenate([groups[draws.permutation(len(groups))] for _ in range(self.epochs)])

    def taken(self, size: int, wanted: int) -> int:
        """How many examples of a variant with ``size`` examples go into a batch that has room for ``wanted``."""
        return min(size, wanted, size if self.max_examples is None else self.max_examples)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A batch: the number of its set, its examples and their puzzles; ``position``: after it."""

    position: Position
    set_number: int
    rows_B: Array
    puzzles_B: Array


def original(plan: Plan, start: Position) -> Iterator[Packed]:
    """The batches of an iteration after a position."""
    orders = [_variants(plan, arrays, start.iteration + 1, number) for number, arrays in enumerate(plan.sets)]
    used = list(start.groups) or [0] * len(orders)
    batch = start.batch
    while remaining := sum(len(order) - done for order, done in zip(orders, used, strict=True)):
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((plan.seed, start.iteration, batch, *used))))
        chances = [(len(order) - done) / remaining for order, done in zip(orders, used, strict=True)]
        number = int(draws.choice(len(orders), p=chances)) if len(orders) > 1 else 0
        rows, puzzles, used[number] = _pack(plan, number, orders[number], used[number], plan.examples or draws)
        if len(rows) < plan.batch_size:
            continue
        batch += 1
        position = Position(iteration=start.iteration, groups=tuple(used), batch=batch)
        yield Packed(position=position, set_number=number, rows_B=rows, puzzles_B=puzzles)


def _variants(plan: Plan, arrays: Split, iteration: int, number: int) -> Array:
    """The variants of an iteration over a set, in order: drawn at once, which gives the draws that the original makes one by one."""
    seed = plan.seed + iteration
    draws = np.random.Generator(np.random.Philox(seed if number == 0 else np.random.SeedSequence((seed, number))))
    first = arrays.group_indices
    groups = plan.shuffled(number, draws)
    variants: Array = draws.integers(first[groups], first[groups + 1])
    return variants.astype(np.int32)


def _pack(plan: Plan, number: int, order: Array, used: int, draws: Draws) -> tuple[Array, Array, int]:
    """A batch: its examples, their puzzles, and how many entries of the order are used up after it. At the end it may be incomplete."""
    first = plan.sets[number].puzzle_indices
    rows: list[Array] = []
    puzzles: list[int] = []
    wanted = plan.batch_size
    while used < len(order) and wanted:
        puzzle = int(order[used])
        start, size = int(first[puzzle]), int(first[puzzle + 1] - first[puzzle])
        taken = plan.taken(size, wanted)
        rows.append(start + draws.permutation(size)[:taken])
        puzzles += [puzzle] * taken
        wanted -= taken
        used += 1
    return np.concatenate(rows), np.asarray(puzzles), used


@dataclass
class _ForkSet:
    """What is left of a set in an iteration of the fork."""

    number: int
    draws: np.random.Generator
    groups: Array
    used: int = 0

    @property
    def left(self) -> int:
        return len(self.groups) - self.used


def fork(plan: Plan, start: Position) -> Iterator[Packed]:
    """The batches of an iteration after a position, as the fork draws them."""
    seed = plan.seed + start.iteration + 1
    choice = np.random.Generator(np.random.Philox(seed))
    active = [_fork_set(plan, seed, number) for number in range(len(plan.sets))]
    used = [0] * len(active)
    batch = 0
    while open_sets := [each for each in active if each.left]:
        left = np.array([each.left for each in open_sets], dtype=np.float64)
        chosen = open_sets[int(choice.choice(len(open_sets), p=left / left.sum()))]
        rows, puzzles = _fork_pack(plan, chosen)
        used[chosen.number] = chosen.used
        if len(rows) < plan.batch_size:
            active.remove(chosen)
            continue
        batch += 1
        if batch > start.batch:
            position = Position(iteration=start.iteration, groups=tuple(used), batch=batch)
            yield Packed(position=position, set_number=chosen.number, rows_B=rows, puzzles_B=puzzles)


def _fork_set(plan: Plan, seed: int, number: int) -> _ForkSet:
    draws = np.random.Generator(np.random.Philox(seed + 1000 * (number + 1)))
    return _ForkSet(number=number, draws=draws, groups=plan.shuffled(number, draws))


def _fork_pack(plan: Plan, chosen: _ForkSet) -> tuple[Array, Array]:
    arrays, draws = plan.sets[chosen.number], chosen.draws
    rows: list[Array] = []
    puzzles: list[int] = []
    wanted = plan.batch_size
    while chosen.left and wanted:
        group = chosen.groups[chosen.used]
        chosen.used += 1
        puzzle = int(draws.integers(arrays.group_indices[group], arrays.group_indices[group + 1]))
        start, size = int(arrays.puzzle_indices[puzzle]), int(arrays.puzzle_indices[puzzle + 1] - arrays.puzzle_indices[puzzle])
        taken = plan.taken(size, wanted)
        rows.append(start + (draws.permutation(size) if taken == size else draws.choice(size, taken, replace=False)))
        puzzles += [puzzle] * taken
        wanted -= taken
    return np.concatenate(rows), np.asarray(puzzles)


ORDERS: dict[OrderName, Callable[[Plan, Position], Iterator[Packed]]] = {"original": original, "fork": fork}
"""The orders by name."""
