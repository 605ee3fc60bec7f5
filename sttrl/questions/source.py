"""The questions of a run: chosen from a data set, and made into problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from sttrl.config import RunConfig, to_plain
from sttrl.config.template import template_settings
from sttrl.data import BuiltProblems, SourceSpec, Table, questions
from sttrl.errors import UsageError
from sttrl.ledger.folder import begun_revisions, run_folder, source_of
from sttrl.ledger.seeds import SeedSource
from sttrl.questions.answers import Judge
from sttrl.questions.kind import Clock, Questions, opened_questions
from sttrl.questions.prompts import AskedQuestion, build_problems
from sttrl.questions.views import ViewChoice


class ChosenQuestions:
    """See `sttrl.run.kind.Chosen`. ``judge``: one that runs already, as in a session; None: the run starts its own."""

    judge: Judge | None = None

    def __init__(self, config: RunConfig, read: Callable[[SourceSpec], Table]) -> None:
        """Read the data set. Raises `DataError`."""
        self.config = config
        self.table = read(source_of(to_plain(config) | begun_revisions(run_folder(config))))
        self.chosen = questions(self.table, config.data.ids or None, config.data.limit)

    @property
    def kind(self) -> str:
        """Text questions."""
        return "questions"

    @property
    def unit(self) -> str:
        """What a line of progress calls them."""
        return "questions"

    @property
    def data(self) -> Table:
        """The data set, for the report."""
        return self.table

    def opened(self, stop_token_ids: Sequence[int]) -> AbstractAsyncContextManager[Callable[[SeedSource, Clock], Questions]]:
        """A context in which a judge runs, and questions can be evaluated."""
        return opened_questions(self.config, self.judge)

    @property
    def ids(self) -> tuple[str, ...]:
        """The chosen questions."""
        return tuple(question.id for question in self.chosen)

    @property
    def revision(self) -> str | None:
        """The commit of the data set on the hub; None if it is not from the hub."""
        return self.table.revision

    @property
    def training_revision(self) -> None:
        """None: questions have no other training set."""

    def build(self, tokenizer: Any, context: int | None) -> BuiltProblems:
        """The problems, with their prompts tokenised, and the rows that were left out. Raises `DataError` and `UsageError`."""
        data, asked, dataset = self.config.data, self.config.questions, self.table.dataset
        problems, skipped = build_problems(
            self.chosen,
            tokenizer,
            instruction=dataset.instruction if asked.instruction is None else asked.instruction,
            prompt_format=asked.prompt_format,
            system=asked.system_prompt,
            template_settings=template_settings(asked.chat_template_kwargs),
            max_prompt_tokens=data.max_prompt_tokens or dataset.max_prompt_tokens,
            on_bad_row=data.on_bad_row,
            file=self.table.source,
            views=self._views(context),
        )
        return BuiltProblems(
            problems=problems,
            skipped=(*self.table.skipped, *skipped),
            response_tokens=self.config.sampling.max_response_tokens,
            remarks=_fewer_views(problems, self.config.asking.count(averaged=self.config.averages_views)),
        )

    def _views(self, context: int | None) -> ViewChoice | None:
        """The views under which each question is asked; None: as it is only. Raises `UsageError` for questions without options."""
        averaged, kind = self.config.averages_views, self.table.dataset.kind
        count, form = self.config.asking.count(averaged=averaged), self.config.asking.form(averaged=averaged)
        if count == 1:
            return None
        if form == "options" and kind != "choice":
            raise UsageError(
                f"--question_view_form options: answers of {self.table.dataset.name} are of the kind {kind}, so there are no options.",
                "Use --question_view_form wordings, or --answer_kind choice for a file of multiple-choice questions.",
            )
        sampling = self.config.sampling_of_votes
        return ViewChoice(form=form, count=count, seed=self.config.run.seed, sampling=sampling, averaged=averaged, context=context)


def _fewer_views(problems: Sequence[AskedQuestion], count: int) -> tuple[str, ...]:
    """A line about the questions that have fewer views than were asked for, if there are any."""
    fewer = [problem for problem in problems if problem.view_V and len(problem.view_V) < count]
    return (f"{len(fewer)} of {len(problems)} questions have fewer than {count} views, such as {fewer[0].id!r}",) if fewer else ()
