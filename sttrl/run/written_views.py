"""Views that the base policy writes, such as paraphrases: journalled before they are asked, so a resumed run asks the same ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from sttrl.engine.base import Policy
from sttrl.ledger.journal import JOURNAL, Journal, read_lines
from sttrl.ledger.seeds import SeedSource
from sttrl.run.timing import TimedPolicy
from sttrl.run.work import Work

PURPOSE = "write views"
"""The purpose of the seeds."""


class WrittenViews:
    """The views of a run's problems that its base has written, by problem."""

    def __init__(self, folder: Path, journal: Journal, seeds: SeedSource, progress: Callable[[str], object]) -> None:
        self.journal, self.seeds, self.progress = journal, seeds, progress
        self.known: dict[str, tuple[list[str], int]] = {}
        for line in read_lines(folder) if (folder / JOURNAL).exists() else ():
            if line["kind"] == "views":
                self.known.setdefault(line["id"], (line["texts"], line["tokens"]))

    async def add(self, work: Work, base: Callable[[], Awaitable[Policy]]) -> None:
        """Give a problem its views, and count their tokens. A text that was cut at the token limit is empty. ``base``: opens the base."""
        problem = work.problem
        if problem.id not in self.known:
            policy = TimedPolicy(await base(), work.watch)
            rollouts = await policy.sample(problem.view_requests(self.seeds(problem, PURPOSE, 0, problem.views_wanted)))
            texts, tokens = [r.text if r.finish == "stop" else "" for r in rollouts], sum(len(r.token_T) for r in rollouts)
            self.journal.views(problem.id, texts, tokens)
            self.known[problem.id] = texts, tokens
        texts, tokens = self.known[problem.id]
        work.problem = problem.with_views(texts)
        if (kept := work.problem.view_count - 1) < problem.views_wanted:
            self.progress(f"    {problem.id}: {kept} of {problem.views_wanted} views that the base wrote can be used")
        work.tokens_evaluated += tokens
