"""The judge: from the responses of a group to ballots, in bounded time and memory whatever they contain."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from sttrl.answers.equivalence import classes, decide, is_plain
from sttrl.answers.limits import Limits
from sttrl.answers.pool import Loss, Lost, Pool, Worker
from sttrl.answers.reading import read_answer, read_label
from sttrl.types import Answer, AnswerKind, Ballots, FinishReason

_REMEMBERED: Final = 10_000
_FREE_S: Final = 0.04


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How many workers, and what one answer may cost: a clock per comparison, a total per answer and group, memory."""

    workers: int = 1
    comparison_s: float = 1.5
    answer_s: float = 2.5
    memory_mib: int = 1024
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class JudgeStatistics:
    """Counts since the judge was made: questions put to the workers, answers lost to the clock or to a failure, processes replaced."""

    comparisons: int
    timeouts: int
    errors: int
    kills: int


class _Hostile(Exception):
    """A form that cannot be compared; it abstains, and the others are compared without it."""

    def __init__(self, form: str, reason: Loss) -> None:
        super().__init__(form, reason)
        self.form, self.reason = form, reason


class Judge:
    """Extracts, normalises and compares answers; safe from any thread and in a Ray actor.

    What exact rules cannot decide goes to a pool of worker processes. A form that outlives its clock abstains from then on, with
    the reason ``timeout`` (``error`` where the worker died or ran out of memory), and is not compared again.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self._config = config or JudgeConfig()
        self._pool = Pool(self._config.workers, self._config.memory_mib)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Loss | None] = OrderedDict()
        self._counts: Counter[str] = Counter()

    @property
    def statistics(self) -> JudgeStatistics:
        """The counts so far."""
        with self._lock:
            counts = Counter(self._counts)
        return JudgeStatistics(
            comparisons=counts["comparisons"],
            timeouts=counts["timeout"],
            errors=counts["error"],
            kills=sum(w.kills for w in self._pool.workers),
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that serve now, for whoever watches over processes."""
        return tuple(w.pid for w in self._pool.workers)

    async def ballots(
        self, kind: AnswerKind, texts_and_finishes: Sequence[tuple[str, FinishReason]], option_count: int | None = None
    ) -> Ballots:
        """The answers of a group and their classes, in a thread of their own; ``option_count`` as in `extract`."""
        return await asyncio.to_thread(self.ballots_sync, kind, texts_and_finishes, option_count)

    async def equal(self, kind: AnswerKind, a: str, b: str) -> bool | None:
        """Whether two bare answers are equal, None when time ran out; a label is normalised by the same rules."""
        return await asyncio.to_thread(self.equal_sync, kind, a, b)

    async def close(self) -> None:
        """Kill the workers."""
        await asyncio.to_thread(self.close_sync)

    def ballots_sync(
        self, kind: AnswerKind, texts_and_finishes: Sequence[tuple[str, FinishReason]], option_count: int | None = None
    ) -> Ballots:
        """`ballots` for threads.

        Raises `EngineError` when no worker starts or the judge is closed.
        """
        limits = self._config.limits
        answer_G = tuple(read_answer(text, kind, finish, limits, option_count) for text, finish in texts_and_finishes)
        forms = list(dict.fromkeys(a.text for a in answer_G if a.text is not None))
        if kind == "choice":
            return _ballots(answer_G, {form: i for i, form in enumerate(forms)}, {})
        class_of, lost = self._classify(forms)
        return _ballots(answer_G, class_of, lost)

    def equal_sync(self, kind: AnswerKind, a: str, b: str) -> bool | None:
        """`equal` for threads; an answer beyond the limits, or without a normal form, equals nothing."""
        form_a, form_b = (read_label(x, kind, self._config.limits).text for x in (a, b))
        if form_a is None or form_b is None:
            return False
        verdict = form_a == form_b if kind == "choice" else decide(form_a, form_b)
        if verdict is not None:
            return verdict
        class_of, lost = self._classify([form_a, form_b])
        return None if lost else class_of[form_a] == class_of[form_b]

    def close_sync(self) -> None:
        """`close` for threads."""
        self._pool.close()

    async def __aenter__(self) -> Judge:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _classify(self, forms: Sequence[str]) -> tuple[dict[str, int], dict[str, Loss]]:
        """Class of each form that can be compared, and why the others cannot."""
        bench = _Bench(self._pool, self._config, self._count)
        lost: dict[str, Loss] = {}
        for form in forms:
            reason = self._examined(form, bench)
            if reason:
                lost[form] = reason
        while True:
            standing = [form for form in forms if form not in lost]
            try:
                return dict(zip(standing, classes(standing, bench.same), strict=True)), lost
            except _Hostile as hostile:
                lost[hostile.form] = hostile.reason
                self._remember(hostile.form, hostile.reason)

    def _examined(self, form: str, bench: _Bench) -> Loss | None:
        """Why a form cannot stand comparison even alone, found out once."""
        if is_plain(form):
            return None
        with self._lock:
            if form in self._known:
                return self._known[form]
        reason: Loss | None = None
        try:
            bench.examine(form)
        except _Hostile as hostile:
            reason = hostile.reason
        self._remember(form, reason)
        return reason

    def _remember(self, form: str, reason: Loss | None) -> None:
        with self._lock:
            self._known[form] = reason
            if reason:
                self._counts[reason] += 1
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _count(self) -> None:
        with self._lock:
            self._counts["comparisons"] += 1


class _Bench:
    """The comparisons of one group: verdicts so far, and the seconds each form has cost."""

    def __init__(self, pool: Pool, config: JudgeConfig, count: Callable[[], None]) -> None:
        self._pool, self._config, self._count = pool, config, count
        self._verdicts: dict[tuple[str, str], bool] = {}
        self._spent_s: defaultdict[str, float] = defaultdict(float)

    def examine(self, form: str) -> None:
        """Raises `_Hostile` when the form alone is too much."""
        self._ask({"do": "examine", "a": form}, (form,))

    def same(self, a: str, b: str) -> bool:
        """Whether two forms are equal; raises `_Hostile` for the one to blame when there is no verdict."""
        verdict = decide(a, b)
        if verdict is None:
            verdict = self._verdicts.get((a, b))
        if verdict is None:
            verdict = self._verdicts[a, b] = bool(self._ask({"do": "equal", "a": a, "b": b}, (a, b)))
        return verdict

    def _ask(self, request: dict[str, str], forms: tuple[str, ...]) -> bool | None:
        clock_s = min(self._config.comparison_s, *(self._config.answer_s - self._spent_s[f] for f in forms))
        if clock_s <= 0:
            raise _Hostile(max(forms, key=self._suspicion), "timeout")
        self._count()
        with self._pool.worker() as worker:
            return self._timed(worker, request, forms, clock_s)

    def _timed(self, worker: Worker, request: dict[str, str], forms: tuple[str, ...], clock_s: float) -> bool | None:
        worker.await_ready()  # starting a process is not the answer's fault
        start = time.monotonic()
        try:
            return worker.ask(request, clock_s)
        except Lost as lost:
            raise _Hostile(max(forms, key=self._suspicion), lost.reason) from None
        finally:
            # A quick comparison is free, so that an honest answer among many different ones is not charged for them.
            cost_s = max(0.0, time.monotonic() - start - _FREE_S)
            for form in forms:
                self._spent_s[form] += cost_s

    def _suspicion(self, form: str) -> tuple[int, int, str]:
        """The dearest form before this comparison is to blame (in half seconds), then the longest."""
        return int(self._spent_s[form] / 0.5), len(form), form


def _ballots(answer_G: Sequence[Answer], class_of: dict[str, int], lost: dict[str, Loss]) -> Ballots:
    judged_G = tuple(Answer(text=None, invalid=lost[a.text]) if a.text in lost else a for a in answer_G)
    representatives: dict[int, str] = {}
    for form, number in class_of.items():
        representatives.setdefault(number, form)
    return Ballots(
        answer_G=judged_G,
        class_G=tuple(None if a.text is None else class_of[a.text] for a in judged_G),
        representative_C=tuple(representatives[i] for i in range(len(representatives))),
    )
