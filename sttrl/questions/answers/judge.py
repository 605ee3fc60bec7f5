"""The judge: makes ballots of a group's responses. Its time and memory are bounded, whatever the responses contain."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from sttrl.questions.answers.equivalence import classes, compare, decide
from sttrl.questions.answers.limits import Limits
from sttrl.questions.answers.pool import Loss, Lost, Pool
from sttrl.questions.answers.reading import read_answer, read_label
from sttrl.questions.answers.shapes import is_plain
from sttrl.types import Answer, AnswerKind, Ballots, FinishReason, Invalid

_REMEMBERED: Final = 10_000
"""Most forms whose examination is remembered."""
_FREE_S: Final = 0.04
"""CPU seconds of a comparison that are not charged to its forms."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """The number of worker processes and their limits.

    ``comparison_s``: CPU seconds for one comparison. ``answer_s``: CPU seconds for all comparisons of one answer in one group.
    ``memory_mib``: memory of a worker. ``backstop_s``: wall seconds after which a worker that has not replied is replaced, even if
    it still has CPU time left; this time is not charged to the answer.
    """

    workers: int = 1
    comparison_s: float = 1.5
    answer_s: float = 2.5
    memory_mib: int = 1024
    backstop_s: float = 60.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class JudgeStatistics:
    """Counts since the judge was made.

    ``comparisons``: requests to the workers. ``timeouts``: forms that used up their CPU time. ``errors``: forms on which a worker
    failed. ``late``: forms without a verdict after ``backstop_s``. ``kills``: worker processes replaced. ``cpu_s``: CPU seconds of all
    requests.
    """

    comparisons: int
    timeouts: int
    errors: int
    late: int
    kills: int
    cpu_s: float


class NoVerdict(Exception):
    """Two answers could not be compared because the machine was too busy. Asking again may succeed."""


class _Costly(Exception):
    """A form that cannot be compared within the limits. It abstains, and the other forms are compared without it."""

    def __init__(self, form: str, reason: Loss) -> None:
        super().__init__(form, reason)
        self.form, self.reason = form, reason


class Judge:
    """Extracts, normalises and compares answers. It may be used from any thread and in a Ray actor.

    A form is the normal form of an answer. Exact rules compare most forms; worker processes compare the others. A form that uses up
    its CPU time abstains in this and in all later groups, with the reason ``timeout``; so does a form on which a worker died or ran
    out of memory, with the reason ``error``. If the machine was too busy for a verdict, the form abstains in this group only.
    """

    def __init__(self, config: JudgeConfig | None = None) -> None:
        self._config = config or JudgeConfig()
        self._pool = Pool(self._config.workers, self._config.memory_mib, self._config.backstop_s)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Loss | None] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._cpu_s = 0.0

    @property
    def statistics(self) -> JudgeStatistics:
        """The counts so far."""
        with self._lock:
            counts, cpu_s = Counter(self._counts), self._cpu_s
        return JudgeStatistics(
            comparisons=counts["comparisons"],
            timeouts=counts["timeout"],
            errors=counts["error"],
            late=counts["late"],
            kills=sum(w.kills for w in self._pool.workers),
            cpu_s=cpu_s,
        )

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the current workers."""
        return tuple(w.pid for w in self._pool.workers)

    async def ballots(
        self, kind: AnswerKind, texts_and_finishes: Sequence[tuple[str, FinishReason]], option_count: int | None = None
    ) -> Ballots:
        """The answers of a group and their classes, computed in another thread. ``option_count``: see `extract`."""
        return await asyncio.to_thread(self.ballots_sync, kind, texts_and_finishes, option_count)

    async def equal(self, kind: AnswerKind, a: str, b: str) -> bool | None:
        """Whether two answers are equal; None if one of them cannot be compared within the limits. Either may be a label.

        Raises `NoVerdict` if the machine was too busy.
        """
        return await asyncio.to_thread(self.equal_sync, kind, a, b)

    async def close(self) -> None:
        """Kill the workers."""
        await asyncio.to_thread(self.close_sync)

    def ballots_sync(
        self, kind: AnswerKind, texts_and_finishes: Sequence[tuple[str, FinishReason]], option_count: int | None = None
    ) -> Ballots:
        """`ballots`, in the caller's thread. Raises `EngineError` if no worker starts or the judge is closed."""
        limits = self._config.limits
        answer_G = tuple(read_answer(text, kind, finish, limits, option_count) for text, finish in texts_and_finishes)
        forms = list(dict.fromkeys(a.text for a in answer_G if a.text is not None))
        if kind == "choice":
            return _ballots(answer_G, {form: i for i, form in enumerate(forms)}, {})
        class_of, lost = self._classify(forms)
        return _ballots(answer_G, class_of, lost)

    def equal_sync(self, kind: AnswerKind, a: str, b: str) -> bool | None:
        """`equal`, in the caller's thread. An answer without a normal form equals no other answer."""
        form_a, form_b = (read_label(x, kind, self._config.limits).text for x in (a, b))
        if form_a is None or form_b is None:
            return False
        verdict = form_a == form_b if kind == "choice" else decide(form_a, form_b)
        if verdict is not None:
            return verdict
        class_of, lost = self._classify([form_a, form_b])
        if "late" in lost.values():
            raise NoVerdict
        return None if lost else class_of[form_a] == class_of[form_b]

    def close_sync(self) -> None:
        """`close`, in the caller's thread."""
        self._pool.close()

    async def __aenter__(self) -> Judge:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _classify(self, forms: Sequence[str]) -> tuple[dict[str, int], dict[str, Loss]]:
        """The class of each form that can be compared, and for each other form the reason why it cannot."""
        group = _Comparisons(self._pool, self._config, self._count)
        lost: dict[str, Loss] = {}
        for form in forms:
            reason = self._examined(form, group)
            if reason:
                lost[form] = reason
        while True:
            standing = [form for form in forms if form not in lost]
            try:
                return dict(zip(standing, classes(standing, group.same, group.apart), strict=True)), lost
            except _Costly as costly:
                lost[costly.form] = costly.reason
                self._remember(costly.form, costly.reason)

    def _examined(self, form: str, group: _Comparisons) -> Loss | None:
        """Why a form cannot be read within the limits, None if it can. The result is remembered."""
        if is_plain(form):
            return None
        with self._lock:
            if form in self._known:
                return self._known[form]
        reason: Loss | None = None
        try:
            group.examine(form)
        except _Costly as costly:
            reason = costly.reason
        self._remember(form, reason)
        return reason

    def _remember(self, form: str, reason: Loss | None) -> None:
        """Count the result and remember it, except ``late``, which says something about the machine and not about the form."""
        with self._lock:
            if reason:
                self._counts[reason] += 1
            if reason != "late":
                self._known[form] = reason
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _count(self, cpu_s: float) -> None:
        with self._lock:
            self._counts["comparisons"] += 1
            self._cpu_s += cpu_s


class _Comparisons:
    """The comparisons of one group: the verdicts so far, and the CPU seconds that each form has used."""

    def __init__(self, pool: Pool, config: JudgeConfig, count: Callable[[float], None]) -> None:
        self._pool, self._config, self._count = pool, config, count
        self._decided: dict[tuple[str, str], bool | None] = {}
        self._verdicts: dict[tuple[str, str], bool] = {}
        self._spent_s: defaultdict[str, float] = defaultdict(float)

    def examine(self, form: str) -> None:
        """Let a worker read a form. Raises `_Costly` if that takes too much time or memory."""
        self._ask({"do": "examine", "a": form}, (form,))

    def apart(self, a: str, b: str) -> bool:
        """Whether exact rules say that two forms differ."""
        return self._decision(a, b) is False

    def same(self, a: str, b: str) -> bool:
        """Whether two forms are equal. Raises `_Costly`, which names the form to blame, if there is no verdict."""
        verdict = self._decision(a, b)
        if verdict is None:
            verdict = self._verdicts.get((a, b))
        if verdict is None:
            verdict = self._verdicts[a, b] = compare(a, b, lambda x, y: bool(self._ask({"do": "equal", "a": x, "b": y}, (a, b))))
        return verdict

    def _decision(self, a: str, b: str) -> bool | None:
        key = (a, b) if a < b else (b, a)
        if key not in self._decided:
            self._decided[key] = decide(*key)
        return self._decided[key]

    def _ask(self, request: dict[str, str], forms: tuple[str, ...]) -> bool | None:
        cpu_s = min(self._config.comparison_s, *(self._config.answer_s - self._spent_s[f] for f in forms))
        if cpu_s <= 0:
            raise self._costly(forms, "timeout")
        spent_s = 0.0
        try:
            with self._pool.worker() as worker:
                reply = worker.ask(request, cpu_s)
            spent_s = reply.cpu_s
            return reply.equal
        except Lost as lost:
            spent_s = cpu_s if lost.reason == "timeout" else 0.0
            raise self._costly(forms, lost.reason) from None
        finally:
            self._count(spent_s)
            # Quick comparisons are free: an ordinary answer in a group of many different ones must not use up its time on them.
            for form in forms:
                self._spent_s[form] += max(0.0, spent_s - _FREE_S)

    def _costly(self, forms: tuple[str, ...], reason: Loss) -> _Costly:
        """Blame the form that has used the most CPU time so far, counted in half seconds; among equals, the longest."""
        return _Costly(max(forms, key=lambda form: (int(self._spent_s[form] / 0.5), len(form), form)), reason)


def _ballots(answer_G: Sequence[Answer], class_of: dict[str, int], lost: dict[str, Loss]) -> Ballots:
    judged_G = tuple(Answer(text=None, invalid=_invalid(lost[a.text])) if a.text in lost else a for a in answer_G)
    representatives: dict[int, str] = {}
    for form, number in class_of.items():
        representatives.setdefault(number, form)
    return Ballots(
        answer_G=judged_G,
        class_G=tuple(None if a.text is None else class_of[a.text] for a in judged_G),
        representative_C=tuple(representatives[i] for i in range(len(representatives))),
    )


def _invalid(reason: Loss) -> Invalid:
    return "timeout" if reason == "late" else reason
