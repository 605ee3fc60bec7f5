"""Lists of views: the eight symmetries, permutations of colours, orders of demonstrations, and the published systems' augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from sttrl.arc.grids import COLOURS
from sttrl.arc.views.key import Colours, Order, Symmetry, View
from sttrl.arc.views.problem import ProblemKey

Wish = Literal["no", "random", "all"]
"""Leave a symmetry out, draw it, or take all of its powers."""
ColourWish = Literal["no", "any", "keep background"]
"""Leave the colours, permute all ten, or keep colour 0 and permute the other nine."""

SYMMETRIES = tuple(View.read(key) for key in ("", "tp", "rt", "tp.rt", "rt.rt", "tp.rt.rt", "rt.rt.rt", "tp.rt.rt.rt"))
"""The eight symmetries in ARChitects' order: turned 0 to 3 times, each time first as it is, then transposed before it."""


class Dice(Protocol):
    """Where random draws come from."""

    def permutation(self, n: int) -> tuple[int, ...]:
        """A random order of 0 to n-1."""
        ...

    def below(self, n: int) -> int:
        """A random number from 0 to n-1."""
        ...


class SeededDice:
    """Draws of numpy's PCG64. The same seeds give the same draws on every machine."""

    def __init__(self, *seeds: int) -> None:
        self.generator = np.random.Generator(np.random.PCG64(seeds))

    def permutation(self, n: int) -> tuple[int, ...]:
        """A random order of 0 to n-1."""
        return tuple(int(number) for number in self.generator.permutation(n))

    def below(self, n: int) -> int:
        """A random number from 0 to n-1."""
        return int(self.generator.integers(n))


class LegacyDice:
    """Draws of numpy's legacy stream under a seed, which ARChitects and NVARC use: their keys come out the same.

    No run uses it: recorded keys of the originals are checked with it.
    """

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)

    def permutation(self, n: int) -> tuple[int, ...]:
        """A random order of 0 to n-1."""
        return tuple(int(number) for number in self.state.permutation(n))

    def below(self, n: int) -> int:
        """A random number from 0 to n-1."""
        return int(self.state.randint(0, n))


def colours(dice: Dice, keep_background: bool = True) -> View:
    """A random permutation of the colours. ``keep_background``: 0 stays 0."""
    digits = dice.permutation(COLOURS)
    if keep_background:
        digits = (0, *(digit for digit in digits if digit))
    return View(ops=(Colours(digits=digits),))


def order(dice: Dice, demos: int) -> View:
    """The demonstrations in random order."""
    return View(ops=(Order(demos=dice.permutation(demos)),))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What ARChitects' and NVARC's ``augment`` adds to keys. ``repeats``: how often each key is drawn for.

    No run calls `augment`: recorded keys of the originals are checked with it.
    """

    transpose: Wish = "no"
    turn: Wish = "no"
    repeats: int = 1
    shuffle: bool = False
    colours: ColourWish = "no"
    orders: bool = False


DemoCount = Callable[[str], int]
"""The number of a task's demonstrations, by its id."""


def augment(
    keys: Iterable[ProblemKey],
    wish: Augmentation,
    dice: Dice,
    demos: DemoCount,
    *,
    repeat_first: bool = True,
    order_dice: Dice | None = None,
) -> tuple[ProblemKey, ...]:
    """Keys with more operations each: transposed, turned, recoloured, reordered, as wished.

    All powers come before repeats, and draws come after (Product of Experts 2025); ``repeat_first`` False repeats after drawn symmetries.
    NVARC takes all powers, so both are the same there; so does Kaggle 2024, whose orders have dice of their own with the same seed.
    """
    found = _all_powers(tuple(keys), wish)
    if repeat_first:
        found = _repeated(found, wish, dice)
    found = _drawn_powers(found, "tp", 2, wish.transpose, dice)
    found = _drawn_powers(found, "rt", 4, wish.turn, dice)
    if not repeat_first:
        found = _repeated(found, wish, dice)
    # Draws are made for what is not wished too: as the originals do, and so that one wish does not change another's draws.
    recolourings = [colours(dice, wish.colours == "keep background") for _ in found]
    if wish.colours != "no":
        found = tuple(key.seen(view) for key, view in zip(found, recolourings, strict=True))
    orders = [order(order_dice or dice, len(key.view.order(demos(key.task)))) for key in found]
    return tuple(key.seen(view) for key, view in zip(found, orders, strict=True)) if wish.orders else found


def augment_2024(keys: Iterable[ProblemKey], wish: Augmentation, dice: Dice, demos: DemoCount) -> tuple[ProblemKey, ...]:
    """Keys as ARChitects 2024 augments them: one after the other, and repeated after symmetries are drawn."""
    return tuple(new for key in keys for new in augment((key,), wish, dice, demos, repeat_first=False))


def _all_powers(keys: tuple[ProblemKey, ...], wish: Augmentation) -> tuple[ProblemKey, ...]:
    if wish.transpose == "all":
        keys = tuple(_seen(key, "tp", power) for power in range(2) for key in keys)
    if wish.turn == "all":
        keys = tuple(_seen(key, "rt", power) for power in range(4) for key in keys)
    return keys


def _repeated(keys: tuple[ProblemKey, ...], wish: Augmentation, dice: Dice) -> tuple[ProblemKey, ...]:
    orders = [dice.permutation(len(keys)) if wish.shuffle else range(len(keys)) for _ in range(wish.repeats)]
    return tuple(keys[number] for numbers in orders for number in numbers)


def _drawn_powers(keys: tuple[ProblemKey, ...], op: Symmetry, powers: int, wish: Wish, dice: Dice) -> tuple[ProblemKey, ...]:
    if wish == "all":
        return keys
    drawn = [dice.below(powers) for _ in keys]
    return tuple(_seen(key, op, power) for key, power in zip(keys, drawn, strict=True)) if wish == "random" else keys


def _seen(key: ProblemKey, op: Symmetry, power: int) -> ProblemKey:
    return key.seen(View(ops=(op,) * power))


def shortened(view: View, demos: int, fits: Callable[[View], bool], drop: Literal["first", "last"], fewest: int = 0) -> View | None:
    """The view with as many demonstrations as fit, dropped one after the other; the view itself where all of them fit.

    ``fits`` says whether the puzzle is short enough in a view. Kaggle 2024 and NVARC drop the first, down to none; ARChitects' training
    code drops the last and keeps one. None: not even the ``fewest`` fit.
    """
    if fits(view):
        return view
    shown = view.order(demos)
    for kept in range(len(shown) - 1, fewest - 1, -1):
        shorter = _reordered(view, shown[len(shown) - kept :] if drop == "first" else shown[:kept])
        if fits(shorter):
            return shorter
    return None


def _reordered(view: View, demos: Sequence[int]) -> View:
    """The view with one order instead of its own, where its last one stood."""
    places = [place for place, op in enumerate(view.ops) if isinstance(op, Order)]
    place = places[-1] if places else len(view.ops)
    others = [[op for op in ops if not isinstance(op, Order)] for ops in (view.ops[:place], view.ops[place:])]
    return View(ops=(*others[0], Order(demos=tuple(demos)), *others[1]))
