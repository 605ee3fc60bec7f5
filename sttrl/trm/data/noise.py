"""Noise on the inputs of training, as in Trelis' fork: some cells of a grid's commonest colour get other colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sttrl.errors import UsageError
from sttrl.trm.data.canvas import FIRST_COLOUR


@dataclass(frozen=True, kw_only=True)
class GridNoise:
    """``probability``: that an input gets noise; ``fraction``: how many of the cells of its commonest colour change, at least one."""

    probability: float = 0.0
    fraction: float = 0.0

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that are no shares."""
        if not 0 <= self.probability <= 1 or not 0 <= self.fraction <= 1:
            raise UsageError(
                f"grid_noise_prob is {self.probability} and grid_noise_fraction is {self.fraction}.", "Use numbers from 0 to 1."
            )

    def add(self, inputs: npt.NDArray[np.int32], vocab_size: int, seed: tuple[int, ...], first: int) -> None:
        """Change inputs (rows, cells) in place. The noise of a row depends on ``seed`` and on its number, which counts from ``first``."""
        if not self.probability or not self.fraction:
            return
        for number, cells in enumerate(inputs, start=first):
            draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((*seed, number))))
            if draws.random() < self.probability:
                _change(cells, self.fraction, vocab_size, draws)


def _change(cells: npt.NDArray[np.int32], fraction: float, vocab_size: int, draws: np.random.Generator) -> None:
    counts = np.bincount(cells, minlength=vocab_size)[FIRST_COLOUR:]
    commonest = FIRST_COLOUR + int(counts.argmax())
    places = np.flatnonzero(cells == commonest)
    others = [colour for colour in range(FIRST_COLOUR, vocab_size) if colour != commonest]
    if not len(places) or not counts.any() or not others:
        return
    changed = draws.permutation(places)[: max(1, int(fraction * len(places)))]
    cells[changed] = draws.choice(others, size=len(changed))
