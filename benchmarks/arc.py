"""ARC against the published ways: a ttt step against plain peft, a search against token-by-token recursion, scores row by row.

    python benchmarks/arc.py [--model builtin/SmolLM2-135M-Instruct] [--dtype auto] [--steps 40] [--save]

The model is cut to 16 tokens, and trained on one task of `arc-demo` in plain peft, so that there is something to find. Ours and the peer
then get the same weights, rows and prompts. Every ratio is of one run on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from table import matmul_limit, show

VIEWS = 8
MIN_PROB = 0.1
LONGEST_REPLY = 120
UNEQUAL = ("6150a2bd", "66e6c45b", "e9afcf9a", "0d3d703e", "44f52bb0", "25d8a9c8", "d037b0a7", "5582e5ca")
"""The tasks of which a step of eight rows takes one each; their rows have 58 to 180 tokens."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="builtin/SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="as main.py's (default: auto)")
    parser.add_argument("--steps", type=int, default=40, help="steps of training before the search")
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given = parser.parse_args()
    from sttrl.engine.environment import choose_dtype

    dtype = choose_dtype(given.dtype, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shrunk = shrink(given.model, place / "cut")
        limit = matmul_limit(dtype)
        rows = steps(shrunk, dtype, limit, place)
        trained = train(shrunk, given.steps, place / "trained")
        rows += scoring(trained, dtype, place) + asyncio.run(searching(trained, dtype))
    notes = (
        f"In {dtype}; the matmul limit is {limit:.0f} GFLOP/s. Peer of the steps: peft and transformers, the rows padded to the longest. "
        f"Peer of the search ({VIEWS} views of one task, p > {MIN_PROB}): depth-first, token by token, batch 1, one cache that is cropped "
        "on backtracking; a guess is the best reply so far, in the next view. Peer of the scores: one row at a time."
    )
    show("ARC", ["what", "ours", "peer", "ratio", "limit"], rows, notes, given.save)


def shrink(model: str, target: Path) -> Path:
    """The model cut to 16 tokens, with a head of its own."""
    from sttrl import cli

    assert cli.main(["shrink", model, "--codec", "cells_16", "--untie", "--out", str(target)]) == 0
    return target


def tasks() -> dict[str, Any]:
    """The tasks of both demo sets, by id."""
    from sttrl.arc.sources import ArcSpec, read_tasks

    return {task.id: task for name in ("arc-demo", "arc-demo-others") for task in read_tasks(ArcSpec(dataset=name)).tasks}


def scribe_of(folder: Path) -> Any:
    """Writes puzzles in the tokens of a model."""
    from sttrl.arc.codecs.registry import codec_for
    from sttrl.arc.problem import Scribe
    from sttrl.engine.models import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return Scribe(codec_for("cells_16", tokenizer), tokenizer, 1 << 20, "last")


def training_rows(folder: Path, names: Sequence[str], count: int) -> list[Any]:
    """``count`` rows of ttt, of these tasks in turn."""
    from sttrl.arc.problem import drawn_view
    from sttrl.arc.training_set import as_row
    from sttrl.arc.views.training import all_demos

    scribe, known, found = scribe_of(folder), tasks(), []
    for number in range(count):
        task = known[names[number % len(names)]]
        (puzzle,) = all_demos(task, [drawn_view(len(task.demos), number, 0, "keep_background")])
        found.append(as_row(puzzle, scribe, "outputs_but_first"))
    return found


class Peer:
    """Plain peft and transformers, with the demo's adapter."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)  # noqa: TID251 - a peer's own script
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        self.model = get_peft_model(model, LoraConfig(r=32, lora_alpha=16, use_rslora=True, target_modules=targets))
        base = self.model.base_model.model
        ends = [base.get_input_embeddings().weight, base.get_output_embeddings().weight]
        lora = [p for p in self.model.parameters() if p.requires_grad]
        for weight in ends:
            weight.requires_grad_(True)
        self.parameters = [*lora, *ends]
        groups = [{"params": lora, "lr": 5e-4}, {"params": ends, "lr": 1e-4}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)
        self.model.train()

    def step(self, rows: Sequence[Any]) -> None:
        """One optimiser step on rows padded to the longest."""
        import torch
        from torch.nn.functional import cross_entropy

        longest = max(len(row.token_T) for row in rows)
        ids = torch.tensor([[*row.token_T, *[0] * (longest - len(row.token_T))] for row in rows])
        seen = torch.tensor([[1] * len(row.token_T) + [0] * (longest - len(row.token_T)) for row in rows])
        weight = torch.tensor([[*row.weight_T, *[0.0] * (longest - len(row.token_T))] for row in rows])
        mask = {} if bool(seen.all()) else {"attention_mask": seen}
        logits = self.model(input_ids=ids, **mask, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        ((losses * weight[:, 1:]).sum() / weight[:, 1:].sum()).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def learner_of(folder: Path, dtype: str, place: Path) -> Any:
    """One learner rank in this process, with the demo's adapter."""
    from sttrl.engine.base import AdapterShape
    from sttrl.engine.processes import SHARED_CORES
    from sttrl.engine.verl.worker_group import alone

    os.environ |= {"VERL_PLATFORM": "cpu", **SHARED_CORES, **alone(place / f"meeting-{time.monotonic_ns()}")}
    from sttrl.engine.verl.learner import Learner

    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    shape = AdapterShape(rank=32, alpha=16, rank_stabilised=True, targets=targets, trainable_modules=("embed_tokens", "lm_head"))
    return Learner(settings(folder, dtype, adapter=shape, trains=True))


def settings(folder: Path, dtype: str, **own: Any) -> Any:
    """A small engine."""
    from sttrl.engine.base import EngineSettings
    from sttrl.engine.models import load_tokenizer, stop_token_ids

    plain = {
        "model_folder": str(folder), "stop_token_ids": stop_token_ids(folder, load_tokenizer(folder)), "device": "cpu", "dtype": dtype,
        "trust_remote_code": False, "adapter": None, "learner_ranks": 1, "micro_batch_tokens": None, "trains": False,
        "separate_reference": False, "max_model_len": 1024, "max_num_seqs": 64, "kv_cache_mib": 256, "gpu_memory_utilization": 0.4,
        "max_forks": 1,
    }  # fmt: skip
    return EngineSettings(**(plain | own))


def steps(folder: Path, dtype: str, limit: float, place: Path) -> list[list[str]]:
    """A step of one row, and one of eight rows of unequal lengths."""
    from sttrl.types import DeltaSpec, Objective, whole_rows

    learner, peer, table = learner_of(folder, dtype, place), Peer(folder, dtype), []
    learner.open_fork("fork", DeltaSpec(kind="lora", lr={"main": 5e-4, "embedding": 1e-4}, adam_betas=(0.9, 0.95)))
    frozen = sum(p.numel() for p in peer.model.parameters() if not p.requires_grad)
    for what, rows in (
        ("one row", training_rows(folder, UNEQUAL[:1], 1)),
        ("eight rows of unequal lengths", training_rows(folder, UNEQUAL, 8)),
    ):
        tokens = sum(len(row.token_T) for row in rows)
        ours, theirs = in_turns(
            lambda rows=rows: learner.update("fork", whole_rows(rows), Objective(loss="nll")), lambda rows=rows: peer.step(rows)
        )
        share = 4 * frozen * tokens / ours / 1e9 / limit  # frozen weights get no gradient of their own
        table.append([f"ttt step: {what}, {tokens} tokens", f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.2f}x", f"{share:.0%}"])
    return table


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], times: int = 4) -> tuple[float, float]:
    """The best seconds of each, in turns, after one that does not count: other work on the machine then slows both alike."""
    found: list[tuple[float, float]] = []
    for _ in range(times + 1):
        started = time.perf_counter()
        ours()
        between = time.perf_counter()
        theirs()
        found.append((between - started, time.perf_counter() - between))
    return min(a for a, _ in found[1:]), min(b for _, b in found[1:])


def train(folder: Path, count: int, target: Path) -> Path:
    """The model after ``count`` steps on one task, its adapter merged."""
    import torch

    from sttrl.engine.models import load_tokenizer

    peer = Peer(folder, "float32")
    for row in training_rows(folder, UNEQUAL[1:2], count):
        peer.step([row])
    merged = peer.model.merge_and_unload()
    merged.to(torch.float32).save_pretrained(target)
    load_tokenizer(folder).save_pretrained(target)
    return target


def prompts_of(folder: Path, seed: int = 0) -> tuple[Any, list[tuple[Any, Any, tuple[int, ...]]]]:
    """(scribe, (view, query, prompt) of each view of the trained task)."""
    from sttrl.arc.problem import drawn_view
    from sttrl.arc.tasks import Puzzle

    scribe, task = scribe_of(folder), tasks()[UNEQUAL[1]]
    found = []
    for view in [drawn_view(len(task.demos), number, seed, "any") for number in range(VIEWS)]:
        puzzle = view.on(Puzzle(demos=task.demos, query=task.tests[0]))
        found.append((view, puzzle.query, scribe.encoded(puzzle).token_T))
    return scribe, found


class Recursive:
    """The published search: depth-first over tokens with one cache, which is cropped on backtracking."""

    def __init__(self, folder: Path, dtype: str, end: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.end = torch, end
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.limit = -math.log(MIN_PROB)

    def search(self, prompt_T: Sequence[int], guess_T: Sequence[int] = ()) -> list[tuple[tuple[int, ...], float]]:
        """All replies above the threshold, the likeliest first."""
        from transformers import DynamicCache

        with self.torch.no_grad():
            self.cache, self.found = DynamicCache(), []
            log_TV = self.forward([*prompt_T, *guess_T[:-1]])[len(prompt_T) - 1 :]
            self.walk(list(log_TV), list(guess_T), len(prompt_T), 0.0, ())
        return sorted(self.found, key=lambda pair: pair[1])

    def forward(self, token_T: Sequence[int]) -> Any:
        """Log-probs after each token."""
        output = self.model(input_ids=self.torch.tensor([list(token_T)]), past_key_values=self.cache, use_cache=True)
        return output.logits[0].float().log_softmax(-1)

    def walk(self, known: list[Any], guess: list[int], place: int, nll: float, reply: tuple[int, ...]) -> None:
        """Expand every token that stays below the limit; the guess's first, whose logits are known."""
        wanted = [(nll - float(logprob), token) for token, logprob in enumerate(known[0]) if nll - float(logprob) < self.limit]
        for total, token in sorted(wanted, key=lambda pair: pair[1] != (guess[0] if guess else -1)):
            if token == self.end:
                self.found.append(((*reply, token), total))
            elif len(reply) + 1 < LONGEST_REPLY:
                if guess and token == guess[0] and len(known) > 1:
                    self.walk(known[1:], guess[1:], place + 1, total, (*reply, token))
                else:
                    self.cache.crop(place)
                    self.walk([self.forward([token])[-1]], [], place + 1, total, (*reply, token))


def scoring(folder: Path, dtype: str, place: Path) -> list[list[str]]:
    """The product of experts: eight candidates under eight views."""
    from sttrl.types import Measure, Row, TrainGroup

    scribe, prompts = prompts_of(folder)
    candidates = [tuple(tuple((cell + shift) % 10 for cell in row) for row in tasks()[UNEQUAL[1]].tests[0]) for shift in range(8)]
    learner = learner_of(folder, dtype, place)
    groups = [
        TrainGroup(
            prefix_T=prompt_T,
            row_G=tuple(
                Row(token_T=reply, weight_T=(1.0,) * len(reply)) for grid in candidates for reply in [scribe.reply(query, view.apply(grid))]
            ),
        )
        for view, query, prompt_T in prompts
    ]
    end = groups[0].row_G[0].token_T[-1]
    peer = Recursive(folder, dtype, end)

    def one_by_one() -> None:
        with peer.torch.no_grad():
            for group in groups:
                for row in group.row_G:
                    ids = peer.torch.tensor([[*group.prefix_T, *row.token_T]])
                    log_TV = peer.model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
                    log_TV[len(group.prefix_T) - 1 : -1].gather(1, ids[0, len(group.prefix_T) :, None]).sum()

    ours, theirs = in_turns(lambda: learner.score(None, groups, Measure()), one_by_one, 1)
    return [
        [f"scores of {len(candidates)} candidates under {VIEWS} views", f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.1f}x", ""]
    ]


class Guesses:
    """Replies of one view as guesses in another."""

    def __init__(self, folder: Path) -> None:
        self.scribe = scribe_of(folder)

    def reply(self, view: Any, best: Any) -> tuple[int, ...]:
        """The reply that stands for a grid under a view; none where there is no grid."""
        return () if best is None else self.scribe.reply(best, view.apply(best))

    def grid(self, view: Any, reply_T: Sequence[int]) -> Any:
        """The grid of a reply."""
        return view.invert(self.scribe.codec.read(self.scribe.text(reply_T)))


def published(peer: Recursive, prompts: Sequence[Any], guesses: Guesses | None) -> tuple[float, list[Any]]:
    """(seconds, what was found) of the published search under each view in turn."""
    found, best = [], None
    started = time.perf_counter()
    for view, _, prompt_T in prompts:
        found.append(peer.search(prompt_T, guesses.reply(view, best) if guesses else ()))
        if guesses and best is None and found[-1]:
            best = guesses.grid(view, found[-1][0][0])
    return time.perf_counter() - started, found


async def ours(folder: Path, dtype: str, prompts: Sequence[Any], guesses: Guesses | None) -> tuple[float, list[Any]]:
    """The same of ours, on an engine of its own: all views in a batch; with guesses the first view goes before the others."""
    from sttrl.arc.search import SEARCHES, Ask, SearchConfig, ThresholdConfig
    from sttrl.engine.lanes import RayEngine
    from sttrl.engine.models import load_tokenizer
    from sttrl.types import DeltaSpec

    own, search = settings(folder, dtype), SEARCHES["threshold"]
    config = SearchConfig(max_tokens=LONGEST_REPLY, end_T=frozenset(own.stop_token_ids), threshold=ThresholdConfig(min_prob=MIN_PROB))
    engine = RayEngine(own, load_tokenizer(folder))
    try:
        await engine.start()
        async with engine.fork("base", DeltaSpec(kind="none")) as policy:
            await search(policy, [Ask(prompt_T=prompt_T) for _, _, prompt_T in prompts_of(folder, seed=1)[1]], config)  # other prompts
            started = time.perf_counter()
            if guesses is None:
                found = [*await search(policy, [Ask(prompt_T=prompt_T) for _, _, prompt_T in prompts], config)]
                return time.perf_counter() - started, found
            (first,) = await search(policy, [Ask(prompt_T=prompts[0][2])], config)
            best = guesses.grid(prompts[0][0], first.reply_G[0].token_T) if first.reply_G else None
            rest = [Ask(prompt_T=prompt_T, guess_G=(guesses.reply(view, best),)) for view, _, prompt_T in prompts[1:]]
            found = [first, *await search(policy, rest, config)]
            return time.perf_counter() - started, found
    finally:
        await engine.close()


async def searching(folder: Path, dtype: str) -> list[list[str]]:
    """The threshold search over all views."""
    _, prompts = prompts_of(folder)
    (end,), guesses = settings(folder, dtype).stop_token_ids, Guesses(folder)
    peer = Recursive(folder, dtype, end)
    theirs, expected = published(peer, prompts, None)
    theirs_guided, _ = published(peer, prompts, guesses)
    seconds, found = await ours(folder, dtype, prompts, None)
    seconds_guided, again = await ours(folder, dtype, prompts, guesses)
    same = [{r.token_T for r in f.reply_G} == {tokens for tokens, _ in e} for f, e in zip(found, expected, strict=True)]
    replies = sum(len(f.reply_G) for f in found)
    what = f"all replies of {VIEWS} views ({replies} found, {sum(same)} of {len(same)} sets equal)"
    tokens, fewer = (sum(f.tokens for f in every) for every in (found, again))
    return [
        [f"{what}, without guesses", f"{seconds:.2f} s", f"{theirs:.2f} s", f"{theirs / seconds:.1f}x", f"{tokens} tokens decoded"],
        ["the same, the peer with guesses", f"{seconds:.2f} s", f"{theirs_guided:.2f} s", f"{theirs_guided / seconds:.1f}x", ""],
        [
            "the same, both with guesses", f"{seconds_guided:.2f} s", f"{theirs_guided:.2f} s", f"{theirs_guided / seconds_guided:.1f}x",
            f"{fewer} tokens decoded",
        ],
    ]  # fmt: skip


if __name__ == "__main__":
    main()
