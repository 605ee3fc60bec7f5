"""The stand-in engine for ARC tasks: an explicit model of grids, and one attempt at a run of tasks.

The model is a mixture of programs, such as "turn the grid by half". A reply's probability is that of the programs that write it, so that
greedy responses, likeliest tokens and scores all follow from one formula. Training on a puzzle makes the programs likelier that explain
its outputs.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from stand_in import Faults, StandIn, StandInPolicy, drawn, share

from sttrl.arc.codecs.registry import codec_for
from sttrl.arc.grids import Grid
from sttrl.arc.kind import Arc
from sttrl.config import RunConfig
from sttrl.data import read_table
from sttrl.engine.base import JUST_LOGPROBS, Policy
from sttrl.engine.shrink import small_tokenizer
from sttrl.ledger.folder import TRAINED_ON, attempts, claim
from sttrl.ledger.journal import Journal, read_finished
from sttrl.report.runs import RunReport, report_run
from sttrl.run.kind import KINDS, Chosen, kind_name
from sttrl.run.runner import Runner
from sttrl.run.seats import Seats
from sttrl.types import (
    DeltaSpec,
    FinishReason,
    Measure,
    Objective,
    Request,
    Rollout,
    Row,
    TokenStats,
    TopTokens,
    TrainGroup,
    UpdateStats,
)

BEGIN, END, PAD = "<begin>", "<end>", "<pad>"
TOKENS = (*"0123456789", "I", "O", "\n", BEGIN, END, PAD)
TOKENIZER = small_tokenizer(TOKENS, (BEGIN, END, PAD), BEGIN, END, PAD)
CODEC = codec_for("cells_16", TOKENIZER)
END_TOKEN = TOKENS.index(END)
SMOOTHING = 0.02
"""The probability at each position that is spread over all tokens."""


def flipped(grid: Grid) -> Grid:
    return grid[::-1]


def half_turned(grid: Grid) -> Grid:
    return tuple(row[::-1] for row in grid[::-1])


def doubled(grid: Grid) -> Grid:
    return tuple(tuple(cell for cell in row for _ in range(2)) for row in grid for _ in range(2))


PROGRAMS: tuple[Callable[[Grid], Grid], ...] = (lambda grid: grid, flipped, doubled, half_turned)
"""The last two are the same rule under every view."""
FIRST_LOGITS = (1.0, 0.2, 0.4, 0.0)
"""The base copies the query."""


def rows_of(text: str) -> Grid:
    return tuple(tuple(int(cell) for cell in row if cell.isdigit()) for row in text.strip().split("\n") if row)


@lru_cache(maxsize=4096)
def text_of(token_T: tuple[int, ...]) -> str:
    return "".join(TOKENS[token] for token in token_T)


@lru_cache(maxsize=1024)
def replies_to(prompt: str) -> tuple[str, ...]:
    """What each program writes. ``prompt``: ends where the reply begins."""
    query = rows_of(prompt.rpartition("I")[2].removesuffix("\nO"))
    return tuple(CODEC.answer(program(query)) for program in PROGRAMS)


@lru_cache(maxsize=1024)
def explained(text: str) -> tuple[int, ...]:
    """For each program, how many outputs of a whole puzzle it explains."""
    pairs = [pair.partition("\nO") for pair in text.removeprefix(BEGIN).split(END) if "\nO" in pair]
    grids = [(rows_of(query.removeprefix("I")), rows_of(answer)) for query, _, answer in pairs]
    return tuple(sum(program(query) == answer for query, answer in grids) for program in PROGRAMS)


class ArcPolicy(StandInPolicy):
    """A policy over `PROGRAMS`: ``delta_C`` is added to their logits."""

    engine: ArcStandIn

    def __init__(self, engine: ArcStandIn, spec: DeltaSpec) -> None:
        super().__init__(engine, spec)
        self.delta_C = [0.0] * len(PROGRAMS)

    def weights(self, base: bool = False) -> list[float]:
        """Of each program."""
        exp = [math.exp(first + (0.0 if base else own)) for first, own in zip(FIRST_LOGITS, self.delta_C, strict=True)]
        return [x / math.fsum(exp) for x in exp]

    def next_token(self, prompt: str, reply: str, base: bool = False) -> list[float]:
        """The probability of each token after the beginning of a reply."""
        going = [(w, r) for w, r in zip(self.weights(base), replies_to(prompt), strict=True) if r.startswith(reply) and r != reply]
        left, p = math.fsum(w for w, _ in going), [SMOOTHING / len(TOKENS)] * len(TOKENS)
        for weight, whole in going:
            rest = whole[len(reply) :]
            token = next(number for number, token in enumerate(TOKENS) if rest.startswith(token))
            p[token] += (1 - SMOOTHING) * weight / left
        if not going:
            p[END_TOKEN] += 1 - SMOOTHING
        return p

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        """One response to each request; a prompt may end with the beginning of a reply."""
        await asyncio.sleep(0)
        self.engine.faults.at("sample")
        self.engine.requests += requests
        return tuple(map(self._rollout, requests))

    async def score(
        self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS, at: Literal["policy", "base"] = "policy"
    ) -> tuple[tuple[TokenStats, ...], ...]:
        """Log-probs by the model's formula; every other statistic is minus the log-prob."""
        self.engine.faults.at("score")

        def stats(group: TrainGroup, row: Row) -> TokenStats:
            prefix = text_of(group.prefix_T)
            whole = prefix == BEGIN  # a puzzle without a query: it is likelier, the likelier the programs are that explain it
            logprob_T = self._of_whole(row) if whole else self._logprobs(prefix, row.token_T, base=at == "base")
            minus_T = tuple(-x for x in logprob_T)
            return TokenStats(**{f"{stat}_T": logprob_T if stat == "logprob" else minus_T for stat in measure.want})

        return tuple(tuple(stats(group, row) for row in group.row_G) for group in groups)

    async def update(self, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        """Make programs likelier that explain whole puzzles, or that write replies with a positive advantage."""
        assert self.spec.kind != "none", "a fork without a delta cannot be updated"
        await asyncio.sleep(0)
        self.engine.faults.at("update")
        for group in groups:
            prefix = text_of(group.prefix_T)
            for row in group.row_G:
                text, size = text_of(row.token_T), 1 / sum(len(g.row_G) for g in groups)
                if prefix == BEGIN:
                    gains = [size * count for count in explained(prefix + text)]
                else:
                    advantage = row.advantage_T[0] if row.advantage_T else 1.0
                    gains = [size * advantage * (text == reply) for reply in replies_to(prefix)]
                self.delta_C = [own + gain for own, gain in zip(self.delta_C, gains, strict=True)]
        self.version += 1
        return UpdateStats(
            loss=0.5, grad_norm=1.0, lr=self.spec.lr["main"], kl_to_base=0.1, logprob_gap_mean=0.0, logprob_gap_max=0.0,
            logprob_correlation=1.0, tokens=sum(group.n_tokens for group in groups), micro_batches=1, seconds=0.0,
        )  # fmt: skip

    def _of_whole(self, row: Row) -> tuple[float, ...]:
        counts = explained(BEGIN + text_of(row.token_T))
        known = math.fsum(weight * count for weight, count in zip(self.weights(), counts, strict=True)) / max(*counts, 1)
        return (math.log((1 + known) / 3),) * len(row.token_T)

    def _logprobs(self, prompt: str, token_T: Sequence[int], base: bool = False) -> tuple[float, ...]:
        reply, logprob_T = "", list[float]()
        for token in token_T:
            logprob_T.append(math.log(self.next_token(prompt, reply, base)[token]))
            reply += TOKENS[token]
        return tuple(logprob_T)

    def _rollout(self, request: Request) -> Rollout:
        whole, sampling = text_of(request.prompt_T), request.sampling
        place = whole.rindex("\nO") + len("\nO")
        prompt, reply = whole[:place], whole[place:]
        token_T, logprob_T, top_T = list[int](), list[float](), list[TopTokens]()
        finish: FinishReason = "length"
        while len(token_T) < (len(request.given_T) or sampling.max_tokens) and finish == "length":
            p = self.next_token(prompt, reply)
            greedy = max(range(len(p)), key=lambda token: p[token])
            token = greedy if sampling.temperature == 0 else drawn(p, share("draw", request.seed, len(token_T)))
            token = request.given_T[len(token_T)] if request.given_T else token
            if sampling.lowest_logprob is not None and math.fsum(logprob_T) + math.log(p[token]) < sampling.lowest_logprob:
                finish = "unlikely"
                break
            listed = sorted(((number, math.log(x)) for number, x in enumerate(p)), key=lambda pair: -pair[1])[: sampling.top_logprobs]
            token_T, logprob_T = [*token_T, token], [*logprob_T, math.log(p[token])]
            top_T += [tuple(listed)] if listed else []
            reply += TOKENS[token]
            finish = "stop" if token == END_TOKEN else "length"
        return Rollout(
            seed=request.seed, version=self.version, token_T=tuple(token_T), logprob_T=tuple(logprob_T), top_T=tuple(top_T),
            finish=finish, text=text_of(tuple(token_T)),
        )  # fmt: skip


class ArcStandIn(StandIn):
    """`StandIn` with the model of grids. ``requests``: all that were sampled."""

    def __init__(self, faults: Faults | None = None) -> None:
        super().__init__(faults)
        self.requests: list[Request] = []

    @asynccontextmanager
    async def fork(self, name: str, delta: DeltaSpec) -> AsyncIterator[Policy]:
        """A policy equal to the base."""
        self.faults.at("fork")
        assert name not in self.open, f"{name} is open already"
        self.open.add(name)
        try:
            yield ArcPolicy(self, delta)
        finally:
            self.open.discard(name)


def arc_config(folder: Path, **changes: Any) -> RunConfig:
    """Settings of a small run of tasks in ``folder``."""
    settings: dict[str, Any] = {
        "dataset": "arc-demo", "adaptation_method": "ttt", "ttt_rows": 3, "views": 2, "score_views": 2,
        "output_dir": folder.parent, "run_name": folder.name,
    }  # fmt: skip
    return RunConfig.of(**{**settings, **changes})


def arc_attempt(
    config: RunConfig, engine: ArcStandIn | None = None, said: list[str] | None = None, kinds: list[Arc] | None = None, **kind: Any
) -> RunReport:
    """One attempt at a run of tasks and its report, as the command makes them. ``kind``: what the kind is opened with besides."""
    folder = config.run.output_dir / str(config.run.run_name)
    chosen = KINDS[kind_name(config)].choose(config, read_table)
    with Journal(folder) as journal:
        claim(folder, config, {"kind": chosen.kind, "dataset_revision": chosen.revision, TRAINED_ON: chosen.training_revision})
        if not {f.record.id for f in read_finished(folder)}.issuperset(chosen.ids):
            asyncio.run(_do(config, chosen, engine or ArcStandIn(), journal, [] if said is None else said, kind))
    return report_run(folder, data=chosen.data)


async def _do(config: RunConfig, chosen: Chosen, engine: ArcStandIn, journal: Journal, said: list[str], kind: dict[str, Any]) -> None:
    folder = config.run.output_dir / str(config.run.run_name)
    finished = {f.record.id for f in read_finished(folder)}
    left = [problem for problem in chosen.build(TOKENIZER, 4096).problems if problem.id not in finished]
    async with chosen.opened((END_TOKEN,), **kind) as make:
        runner = Runner(
            config, kind=make, seats=Seats([engine], config.in_flight), journal=journal, folder=folder, attempt=attempts(folder)[0] + 1,
            progress=said.append, track=lambda record: None,
        )  # fmt: skip
        await runner.run(left, len(finished))


def handed_in(folder: Path) -> dict[str, Any]:
    """The submission of a run."""
    return dict(json.loads((folder / "submission.json").read_text()))
