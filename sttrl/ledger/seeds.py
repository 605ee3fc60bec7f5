"""Seeds: a stable hash of the run's seed, the question, the purpose, the step and the sample. No hidden random state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from sttrl.types import Problem

SEED_BITS = 63

SeedSource = Callable[[Problem, str, int, int], tuple[int, ...]]
"""(problem, purpose, step, n) -> n seeds, the same in every run with the same run seed."""


def seed_of(run_seed: int, question_id: str, purpose: str, step: int, sample: int) -> int:
    """A seed in [0, 2**63): BLAKE2b of its arguments, the same on every machine and in every order of questions."""
    text = "\x1f".join((str(run_seed), question_id, purpose, str(step), str(sample)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> (64 - SEED_BITS)


def seed_source(run_seed: int) -> SeedSource:
    """Seeds of one run."""

    def seeds(problem: Problem, purpose: str, step: int, n: int) -> tuple[int, ...]:
        return tuple(seed_of(run_seed, problem.id, purpose, step, sample) for sample in range(n))

    return seeds
