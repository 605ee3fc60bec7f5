"""`AsyncSession`: a model that stays loaded, and adapts to each question that it is asked. Each question is a run of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from sttrl.config import RunConfig, field_names, has_effect, to_plain, with_preset
from sttrl.config.run_config import GROUP_OF
from sttrl.config.template import template_settings
from sttrl.config.yaml_settings import typed
from sttrl.data import BuiltProblems
from sttrl.data.layouts import LayoutError, question_of
from sttrl.data.registry import custom_dataset
from sttrl.data.table import Columns
from sttrl.data.table import Question as Asked
from sttrl.engine.base import EngineSettings, Policy
from sttrl.errors import DataError, EngineError, LaneLostError, OutOfMemoryError, UsageError
from sttrl.ledger.files import write_json, write_text
from sttrl.ledger.folder import folder_name, identity
from sttrl.ledger.seeds import SEED_BITS
from sttrl.library.answers import Answer, Question, TaskAnswer, read_answer, read_task_answer
from sttrl.questions.answers import Judge
from sttrl.questions.prompts import AskedQuestion, build_problem
from sttrl.questions.source import ChosenQuestions
from sttrl.run.attempt import Watcher, attempt_run
from sttrl.run.kind import MakeKind
from sttrl.run.plan import EngineParts, Plan, Shared, make_plan, prepare
from sttrl.run.shared import SharedLanes, StartLanes, Visit
from sttrl.run.workshop import started
from sttrl.types import DeltaSpec, Problem, Request, Rollout, Sampling

T = TypeVar("T")
TRIES = 3
"""How often a question is begun, if the engine dies each time."""
PROMPT_TOKENS = 1024
"""The longest prompt of a session, unless ``max_prompt_tokens`` says otherwise."""
IN_FLIGHT = 4
"""How many questions a lane works on at once, unless ``parallel_problems`` says otherwise (derived)."""
OWN = frozenset({"dataset", "ids", "limit", "run_name", "output_dir", "data_dir", "config", "retry_unsure", "continuous", "track"})
"""Settings of a run that a session sets itself, or that make no sense for a single question."""
QUESTIONS = "questions"
QUESTION_ONLY = Columns(question=("prompt",), needed="prompt", answer=None, id=None)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question with the settings of its run; `AsyncSession.ask` makes it."""

    id: str
    question: Question
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.config.run.output_dir / str(self.config.run.run_name)


class AsyncSession:
    """A model that stays loaded. See `sttrl.Session`, its twin without ``await``."""

    def __init__(
        self,
        model: str = "builtin/SmolLM2-135M-Instruct",
        *,
        output_dir: str | Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        start_lanes: StartLanes = started,
        **settings: Any,
    ) -> None:
        """``start_lanes`` starts the engine. Raises `UsageError` for a setting that is unknown or has a bad value."""
        self.say, self.start_lanes = say, start_lanes
        self.own = {"parallel_problems": IN_FLIGHT, **self._known(settings), "model": model}
        self.base = self.config_of({})
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.shared = Shared()
        self.turns: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self.exit = AsyncExitStack()

    async def __aenter__(self) -> AsyncSession:
        if self.output_dir is None:
            folder = self.exit.enter_context(tempfile.TemporaryDirectory(prefix="sttrl-session-", ignore_cleanup_errors=True))
        self.folder = Path(folder) if self.output_dir is None else self.output_dir
        self.lanes = SharedLanes(self.say, self.base.in_flight, self.folder / "logs", self.start_lanes)
        self.gate = asyncio.Semaphore(self.base.in_flight * self.base.run.lanes)
        try:
            self.parts = await asyncio.to_thread(self._parts)
            # One for all questions: to start it takes longer than to judge the answers of a question.
            self.judge = await self.exit.enter_async_context(Judge())
            self.exit.push_async_callback(self.lanes.close)
            await self.start()
        except BaseException:
            await self.exit.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.exit.aclose()

    async def start(self) -> None:
        """Start the engine, if it does not run. Raises `EngineError`."""
        await self.lanes.take(self.parts)
        await self.lanes.leave()

    async def solve(self, question: Question, *, id: str | None = None, label: str | None = None, **settings: Any) -> Answer:
        """Adapt to one question, and answer it. See `sttrl.Session.solve`."""
        ask = self.ask(question, id=id, label=label, **settings)
        await self.run(ask)
        return await asyncio.to_thread(read_answer, ask.folder, question if isinstance(question, str) else question[-1]["content"])

    async def solve_all(
        self, questions: Sequence[Question], *, progress: Callable[[int, int], None] | None = None, **settings: Any
    ) -> list[Answer]:
        """Adapt to each of several questions, as many at once as ``parallel_problems`` says. See `sttrl.Session.solve_all`."""
        done = 0

        async def one(question: Question) -> Answer:
            nonlocal done
            answer = await self.solve(question, **settings)
            done += 1
            if progress is not None:
                progress(done, len(questions))
            return answer

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(question)) for question in questions]
        except BaseExceptionGroup as several:
            raise (first := several.exceptions[0]) from first.__cause__
        return [task.result() for task in tasks]

    async def solve_task(self, task: Mapping[str, Any] | str | Path, *, id: str | None = None, **settings: Any) -> TaskAnswer:
        """Adapt to one ARC task, and answer it. See `sttrl.Session.solve_task`."""
        if isinstance(task, str | Path):
            id, content = id or Path(task).stem, json.loads(Path(task).read_text(encoding="utf-8"))
        else:
            content = dict(task)
        text = json.dumps(content, sort_keys=True)
        id = id or f"task_{digest(text)}"
        folder = self.folder / "tasks" / digest(text)
        write_json(folder / f"{id}.json", content)
        ask = self._ask(id, text, folder, {"adaptation_method": "ttt"} | settings, kind="arc")
        await self.run(ask)
        return await asyncio.to_thread(read_task_answer, ask.folder)

    async def sample(
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
        """Sample the base, or a policy with a kept adapter, without adapting. See `sttrl.Session.sample`."""
        config = self.config_of({**settings, "adaptation_method": "none"})
        problem, chosen = await asyncio.to_thread(self.problem, question, config), config.sampling
        sampling = Sampling(
            temperature=chosen.temp if temperature is None else temperature,
            top_p=chosen.top_p if top_p is None else top_p,
            max_tokens=chosen.max_response_tokens if max_tokens is None else max_tokens,
            top_logprobs=top_logprobs,
        )
        kept = adapter.adapter if isinstance(adapter, Answer) else None if adapter is None else Path(adapter)
        if kept is not None and not kept.is_dir():
            raise UsageError(f"{kept} is no folder.", "Give an answer, or the folder of an adapter.")
        requests = Request.each(problem.prompt_T, sampling, seeds_from(seed, n))
        return await self.sample_prompts(requests, kept)

    async def sample_prompts(self, requests: Sequence[Request], adapter: Path | None = None) -> tuple[Rollout, ...]:
        """Responses of the base, or of a policy with a kept adapter, to prompts that are tokenised."""
        return await self.with_policy(lambda policy: policy.sample(requests), adapter)

    async def with_policy(self, work: Callable[[Policy], Awaitable[T]], adapter: Path | None = None) -> T:
        """What ``work`` returns for the base, or for a policy with a kept adapter. If the engine dies it is started again, and so is
        ``work``."""
        for left in reversed(range(TRIES)):
            try:
                async with self.lanes.lane(self.parts) as lane:
                    if adapter is None:
                        async with lane.fork(f"base_{uuid.uuid4().hex}", DeltaSpec(kind="none")) as policy:
                            return await work(policy)
                    spec = DeltaSpec(kind="lora" if self.base.update.lora_rank else "full", lr={"main": 0.0, "embedding": 0.0})
                    async with lane.fork(f"kept_{uuid.uuid4().hex}", spec) as policy:
                        await policy.load(adapter)
                        return await work(policy)
            except EngineError as error:
                if left and (isinstance(error, LaneLostError) or not self.lanes.alive):
                    self.say(f"{error.message} The engine is started again.")
                    continue
                raise
        raise AssertionError("the last try returns or raises")

    def problem(self, question: Question, config: RunConfig) -> AskedQuestion:
        """A question as a problem, as a run with these settings asks it. Raises `UsageError`, and `DataError` for a prompt that is too
        long."""
        asked, dataset = config.questions, custom_dataset("session", config.questions.answer_kind)
        try:
            found = question_of({"prompt": question if isinstance(question, str) else list(question)}, QUESTION_ONLY)
        except LayoutError as error:
            raise DataError(f"The question {error.problem}.", "Give a text, or messages of which the last is the user's.") from error
        return build_problem(
            Asked(id=question_id(question), index=0, text=found.text, kind=dataset.kind, row=1, system=found.system, earlier=found.earlier),
            self.parts.tokenizer,
            instruction=dataset.instruction if asked.instruction is None else asked.instruction,
            prompt_format=asked.prompt_format,
            system=asked.system_prompt,
            template_settings=template_settings(asked.chat_template_kwargs),
            max_prompt_tokens=self.longest_prompt,
        )

    def ask(
        self, question: Question, *, id: str | None = None, label: str | None = None, folder: Path | None = None, **settings: Any
    ) -> Ask:
        """A question with the settings of its run. Raises `UsageError`.

        ``folder``: for its run; None: one below ``output_dir``, the same for the same question with the same settings.
        """
        id = id or question_id(question)
        row = {"id": id, "prompt": question if isinstance(question, str) else list(question)}
        row |= {} if label is None else {"answer": label}
        name = digest(json.dumps(row))
        file = (self.folder / "questions" if folder is None else folder.parent) / f"{name}.jsonl"
        if not file.exists():
            write_text(file, json.dumps(row) + "\n")
        return self._ask(id, question, file, settings, folder)

    async def run(self, ask: Ask, watcher: Watcher | None = None, kind_of: Callable[[MakeKind], MakeKind] = lambda kind: kind) -> None:
        """Do the run of a question. If the engine dies it is started again, and so is the question.

        ``watcher`` is told of every step. ``kind_of``: see `sttrl.run.attempt.attempt_run`.
        """
        started, forks = time.perf_counter(), f"{digest(str(ask.folder))}_"
        async with self._turn(ask.folder):
            plan = await self._plan(ask)
            for left in reversed(range(TRIES)):
                async with self.gate, Visit(self.lanes) as visit:
                    try:
                        await attempt_run(plan, visit, watcher or Watcher(say=self.say), started, forks=forks, kind_of=kind_of)
                        return
                    except EngineError as error:
                        if isinstance(error, OutOfMemoryError) or not left or not visit.lost:
                            raise
                        self.say(f"{error.message} The engine is started again, and so is {ask.id}.")

    def config_of(self, settings: Mapping[str, Any], kind: str = QUESTIONS) -> RunConfig:
        """The session's settings with some changed. Those of the session that do nothing then are left out. Raises `UsageError`.

        ``kind``: the kind of problem, as `sttrl.run.kind.KINDS` names it.
        """
        given, own = self._known(settings), self.own
        if "adaptation_method" in given and own.get("preset") is not None:  # another method: the preset's values without its name
            own = {name: value for name, value in with_preset(own).items() if name != "preset"}
        chosen = {**own, **given}
        every = with_preset(chosen)
        return RunConfig.of(**{
            name: value for name, value in chosen.items() if name in given or (has_effect(name, every) and is_read_by(kind, name))
        })  # fmt: skip

    def _ask(
        self, id: str, question: Any, dataset: Path, settings: Mapping[str, Any], folder: Path | None = None, kind: str = QUESTIONS
    ) -> Ask:
        config = self.config_of(settings, kind).changed(dataset=str(dataset.absolute()), output_dir=self.folder)
        if folder is not None:
            return Ask(id=id, question=question, config=config.changed(output_dir=folder.parent, run_name=folder.name))
        plain = identity(to_plain(config)) | {"dataset": dataset.name}
        name = folder_name((id[:40], config.method.adaptation_method), plain)
        return Ask(id=id, question=question, config=config.changed(run_name=name))

    async def _plan(self, ask: Ask) -> Plan:
        """The plan of a question's run. Raises `UsageError` if the session's engine cannot do it."""
        shared = Shared()  # of its own: nobody reads the table of one question again
        shared.tokenizers = self.shared.tokenizers
        plan = await asyncio.to_thread(make_plan, ask.config, self.say, shared)
        if isinstance(plan.chosen, ChosenQuestions):
            plan.chosen.judge = self.judge
        parts, own = plan.parts, self.lanes.settings
        if parts is None or own is None or not ask.config.data.dataset.endswith(".jsonl"):
            return plan
        check_covered(parts.settings, own)
        return plan

    @property
    def longest_prompt(self) -> int:
        """The most tokens of a prompt."""
        return self.parts.settings.max_model_len - self.base.sampling.max_response_tokens

    def _parts(self) -> EngineParts:
        """What the engine of the session is built from."""
        return prepare(self.base, LongestQuestion(self.base), self.shared, self.say)[1]

    @asynccontextmanager
    async def _turn(self, folder: Path) -> AsyncIterator[None]:
        """One at a time for each run folder."""
        async with self.turns.setdefault(folder, asyncio.Lock()):
            yield

    @staticmethod
    def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings by their names in the command line; ``method`` is short for ``adaptation_method``. Raises `UsageError`."""
        named = {"adaptation_method" if name == "method" else name: value for name, value in settings.items()}
        for name in named:
            if name in OWN:
                raise UsageError(f"{name} is no setting of a session.", "Leave it out.")
            if name not in field_names():
                raise UsageError(f"There is no setting {name}.", "docs/command_line.md lists the settings.")
        return typed({name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}, "a session")


@dataclass(frozen=True)
class LongestQuestion:
    """Stands for the longest question of a session, so that its engine is made large enough; see `sttrl.run.kind.Chosen`."""

    config: RunConfig
    kind = "questions"
    unit = "questions"
    ids = ("the longest",)
    revision = training_revision = data = None

    def build(self, tokenizer: Any, context: int | None) -> BuiltProblems:
        """A prompt as long as a question's may be."""
        response = self.config.sampling.max_response_tokens
        tokens = self.config.data.max_prompt_tokens or min(PROMPT_TOKENS, max(1, (context or 1 << 30) - response))
        return BuiltProblems(problems=(Problem(id="the longest", index=0, prompt_T=(0,) * tokens),), skipped=(), response_tokens=response)

    def opened(self, stop_token_ids: Sequence[int]) -> Any:
        """Nobody asks it."""
        raise NotImplementedError


def check_covered(needed: EngineSettings, own: EngineSettings) -> None:
    """Raises `UsageError` if the session's engine does not serve what a question needs."""
    if own.serves(needed):
        return
    if needed.max_model_len > own.max_model_len:
        raise UsageError(
            f"Prompt and response may take {needed.max_model_len} tokens; the session was started for {own.max_model_len}.",
            "Give the session a larger max_prompt_tokens or max_response_tokens, or ask for a shorter response.",
        )
    larger = own.together(needed) if own.is_like(needed) else needed
    names = [name for name in vars(own) if name not in ("max_num_seqs", "kv_cache_mib") and getattr(own, name) != getattr(larger, name)]
    raise UsageError(f"The session's engine was started with another {', '.join(names)}.", "Give such settings to the session.")


def is_read_by(kind: str, name: str) -> bool:
    """Whether problems of this kind read a setting."""
    kinds = getattr(RunConfig, GROUP_OF[name]).kinds if GROUP_OF[name] else None
    return kinds is None or kind in kinds


def seeds_from(seed: int, n: int) -> tuple[int, ...]:
    """``n`` seeds that follow each other, each in [0, 2**63)."""
    return tuple((seed + place) % (1 << SEED_BITS) for place in range(n))


def question_id(question: Question) -> str:
    """The id of a question that has none: made from its text, so that its seeds are the same each time."""
    return f"q-{digest(question if isinstance(question, str) else json.dumps([dict(message) for message in question]))}"


def digest(text: str) -> str:
    """A short name of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
