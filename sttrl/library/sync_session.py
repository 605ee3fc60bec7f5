"""`Session`: the twin of `AsyncSession` without ``await``. Its event loop runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from sttrl.library.answers import Answer, Question, TaskAnswer
from sttrl.types import Rollout

if TYPE_CHECKING:
    from sttrl.library.session import AsyncSession

T = TypeVar("T")


class Session:
    """A model that stays loaded, and adapts to each question that it is asked::

        with sttrl.Session(model="builtin/SmolLM2-135M-Instruct", max_response_tokens=16) as session:
            answer = session.solve("What is 3 + 4?", method="sttrl", steps=3)

    ``settings`` are those of the command line (docs/command_line.md), without the dashes; those of a single question win over them.
    ``output_dir``: where the run folders of the questions go; a question that was answered there with the same settings is not asked
    again. Without it they are in a temporary folder, which is removed when the session ends. ``say`` gets each line of progress.

    The engine starts with the session. It is made large enough for prompts of ``max_prompt_tokens`` (1024) and responses of
    ``max_response_tokens``; ``parallel_problems`` (4) questions are in flight at once.
    """

    def __init__(
        self,
        model: str = "builtin/SmolLM2-135M-Instruct",
        *,
        output_dir: str | Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        **settings: Any,
    ) -> None:
        """Raises `UsageError` for a setting that is unknown or has a bad value."""
        # Imported late: it imports torch, which nobody needs before a session is made.
        from sttrl.library.session import AsyncSession

        self.twin: AsyncSession = AsyncSession(model, output_dir=output_dir, say=say, **settings)
        self.exit = ExitStack()
        self.portal: BlockingPortal | None = None

    def __enter__(self) -> Session:
        """Start the engine. Raises `EngineError` and `UsageError`."""
        with ExitStack() as undo:
            self.portal = undo.enter_context(start_blocking_portal())
            undo.enter_context(self.portal.wrap_async_context_manager(self.twin))
            self.exit = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.portal = None
        self.exit.close()

    def solve(self, question: Question, *, id: str | None = None, label: str | None = None, **settings: Any) -> Answer:
        """Adapt to one question, and answer it.

        ``question``: a text, or the messages of a conversation. ``id``: its seeds depend on it; None: made from the text. ``label``: the
        right answer; it is read only when the answer is graded. ``method`` is short for ``adaptation_method``. Raises `UsageError` for a
        setting or a question that cannot be used, `EngineError` if the engine dies again and again. Adapting that fails is no error:
        ``answer.status`` says it, and the base answers.
        """
        return self._do(self.twin.solve, question, id=id, label=label, **settings)

    def solve_all(
        self, questions: Sequence[Question], *, progress: Callable[[int, int], None] | None = None, **settings: Any
    ) -> list[Answer]:
        """Adapt to each of several questions and answer it, in their order. ``progress`` is called with (done, all) after each."""
        return self._do(self.twin.solve_all, questions, progress=progress, **settings)

    def solve_task(self, task: Mapping[str, Any] | str | Path, *, id: str | None = None, **settings: Any) -> TaskAnswer:
        """Adapt to one ARC task and answer it. ``task``: {"train": [{"input", "output"}], "test": [{"input"}]}, or a file of that.

        The default method is ``ttt``. If the engine serves questions, it is started again for tasks, once no question is in flight.
        """
        return self._do(self.twin.solve_task, task, id=id, **settings)

    def sample(
        self,
        question: Question,
        n: int = 1,
        *,
        adapter: str | Path | Answer | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        top_logprobs: int = 0,
        seed: int = 0,
        **settings: Any,
    ) -> tuple[Rollout, ...]:
        """Sample ``n`` responses without adapting: of the base, or with the adapter of an answer or in a folder. An answer without an
        adapter is one of a policy that learned nothing, which is the base.

        ``temperature`` (0: greedy), ``top_p`` and ``max_tokens`` default to the session's ``temp``, ``top_p`` and
        ``max_response_tokens``. ``top_logprobs``: how many of the likeliest tokens to report at each position, at most 64. The seeds are
        ``seed``, ``seed + 1`` and so on.
        """
        return self._do(
            self.twin.sample,
            question,
            n,
            adapter=adapter,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            top_logprobs=top_logprobs,
            seed=seed,
            **settings,
        )

    def _do(self, work: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        """The result of a coroutine of the twin. An interrupt cancels it."""
        if self.portal is None:
            raise RuntimeError("The session is not open: use it in a with statement.")
        future = self.portal.start_task_soon(partial(work, *arguments, **named))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise
