"""More effort where it is needed: the problems about which a run is least sure are done once more with another seed.

Which kinds of problems can be, and how sure a run is of a problem, is in `sttrl.run.kind.KINDS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from sttrl.config import RunConfig
from sttrl.ledger.folder import run_folder
from sttrl.ledger.journal import read_finished
from sttrl.ledger.records import QuestionRecord
from sttrl.run.kind import KINDS, kind_name

RETRY, POOLED = "-retry", "-pooled"
"""What is added to the name of a run, with the share of problems, for the folders of its retry and of both together."""


def share_of(config: RunConfig) -> float | None:
    """The share of the problems that a run does again; None: none."""
    again = KINDS[kind_name(config)].again
    return None if again is None else again.share(config)


def retry_of(config: RunConfig, problems: int, seconds: float) -> RunConfig | None:
    """The run that does the least sure problems of a run again; None unless a share was given and all ``problems`` are finished.

    ``seconds``: how long this attempt has taken. None too if no time is left.
    """
    again = KINDS[kind_name(config)].again
    share = None if again is None else again.share(config)
    if again is None or share is None:
        return None
    finished = [found.record for found in read_finished(run_folder(config), again.read)]
    second = again.second(config, seconds)
    if not finished or len(finished) < problems or second is None:
        return None
    name = f"{run_folder(config).name}{RETRY}{share:g}"
    return second.changed(ids=unsure(finished, share, again.confidence), limit=None, seed=config.run.seed + 1, run_name=name)


def pooled_folder(config: RunConfig) -> Path:
    """Where the answers of a run and of its retry are chosen from together."""
    folder = run_folder(config)
    return folder.with_name(f"{folder.name}{POOLED}{share_of(config):g}")


def unsure(problems: Sequence[QuestionRecord], share: float, confidence: Callable[[QuestionRecord], float]) -> tuple[str, ...]:
    """The ids of the least sure problems, in the order of the data set: ``share`` of them, at least one."""
    count = max(1, math.floor(share * len(problems)))
    chosen = {problem.id for problem in sorted(problems, key=lambda problem: (confidence(problem), problem.id))[:count]}
    return tuple(problem.id for problem in problems if problem.id in chosen)
