"""The tiny recursive model against a plain way to compute it: an optimiser step, an evaluation, where the time goes; and memory.

    python benchmarks/trm.py [--quick] [--threads 1] [--save]
    python benchmarks/trm.py memory [--quick] [--batch 2] [--threads 2] [--save]     (7M parameters, sequences of ARC)

The peer (`trm_plain.py`) computes as the original does, on the same weights and data; that both find the same losses is checked first. Ours
and the peer take turns. Every ratio is of one run on one machine. On CPU, in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from table import show
from trm_plain import PlainLearner

from sttrl.trm.arch import ArchConfig, Sizes
from sttrl.trm.config import CONFIGS, read_config
from sttrl.trm.losses import act_loss
from sttrl.trm.model import TinyRecursiveModel, build_model
from sttrl.trm.ranks import Ranks
from sttrl.trm.steps import Learner, accumulated, train_step
from sttrl.trm.train import forward_dtype, learner_of
from sttrl.trm.train_config import TrainConfig

BATCH, POOL = 64, 8
"""Sequences of a batch, and how many batches are drawn."""
SIZES = Sizes(vocab_size=6, seq_len=16, num_puzzle_identifiers=1)
COMMON = {
    "hidden_size": 64, "num_heads": 4, "L_layers": 2, "H_cycles": 2, "L_cycles": 2, "halt_max_steps": 4, "puzzle_emb_ndim": 64,
    "puzzle_emb_len": 1, "forward_dtype": "float32",
}  # fmt: skip
FORMS = {
    "MLP": ArchConfig(**COMMON, mlp_t=True, pos_encodings="none"),
    "attention": ArchConfig(**COMMON, mlp_t=False, pos_encodings="rope"),
}
"""Sudoku 4x4, mixing positions by an MLP or by attention with rotary positions."""
RECORDED = {"MLP": "mlp_t, adam_atan2 formula", "attention": "attention + RoPE"}
"""Rows of the recorded timing of the original."""
GOLDEN = Path(os.environ.get("STTRL_GOLDEN") or Path(__file__).resolve().parents[2] / "shared" / "golden")
COMPARED = 6
"""Steps whose losses are compared; slots halt and are refilled after four of them."""
TOLERANCE = 1e-3
SHOWN = 6
"""Entries of a profile that are shown."""
ARC_SIZES = Sizes(vocab_size=12, seq_len=900, num_puzzle_identifiers=300)
MOST_GIB = 6.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of one piece of work in each round: of the processor, and on the wall."""

    cpu: list[float]
    wall: list[float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("speed", "memory"), default="speed")
    parser.add_argument("--quick", action="store_true", help="few rounds; for memory one sequence, and an evaluation of one step")
    parser.add_argument("--rounds", type=int, help="rounds of ours and the peer in turns (default: 30)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: 1, for memory all cores)")
    parser.add_argument("--batch", type=int, default=2, help="sequences of a batch, for memory")
    parser.add_argument("--save", action="store_true", help="also keep the tables under benchmarks/results")
    given = parser.parse_args()
    if given.what == "memory":
        torch.set_num_threads(given.threads or len(os.sched_getaffinity(0)))
        memory(given)
    else:
        torch.set_num_threads(given.threads or 1)
        speed(given)


def speed(given: argparse.Namespace) -> None:
    """All forms: times, then where the time goes."""
    rounds = given.rounds or (5 if given.quick else 30)
    rows, profiles, remarks = list[list[str]](), list[list[str]](), list[str]()
    for form, arch in FORMS.items():
        remarks.append(f"{form}: {same_losses(arch)}.")
        names = works(arch)
        products = Product(512 if given.quick else 1024)
        found = in_turns([work for pair in names.values() for work in pair] + [products], rounds)
        limit = products.flops / median(found[-1].cpu)
        remarks.append(f"The product ran at {limit / 1e9:.0f} GFLOP/s beside {form}.")
        flops = [step_flops(arch), evaluation_flops(arch), 0.0]
        for at, (what, pair) in enumerate(names.items()):
            rows.append([f"{form}: {what}", *compared(found[2 * at], found[2 * at + 1], flops[at] / limit)])
            if flops[at]:
                profiles.append([f"{form}: {what}", *map(profiled, pair)])
        remarks += recorded(form)
    columns = [
        "what", "ours, CPU ms", "plain, CPU ms", "ratio", "ours, wall ms", "plain, wall ms", "ratio, wall", "ours: of the limit",
        "plain: of the limit",
    ]  # fmt: skip
    notes = (
        f"Sudoku 4x4, batch {BATCH}, float32, {torch.get_num_threads()} thread(s). Median of {rounds} rounds (quartiles), ours and the "
        f"peer in turns. Ratio: the peer over ours, median (quartiles) of the rounds. Limit: a float32 product of two square matrices of "
        f"{products.size}, once in every round; share: operations of the matrix products by formula, over seconds of the processor and the "
        f"limit. A step is everything that training does in one, metrics included. {' '.join(remarks)}"
    )
    show("TRM", columns, rows, notes, given.save)
    notes = f"torch's profiler, self time on the processor; the {SHOWN} largest entries of three runs."
    show("TRM, where the time goes", ["what", "ours", "plain"], profiles, notes, given.save)


def batches(sizes: Sizes, count: int, number: int = POOL) -> list[dict[str, torch.Tensor]]:
    """Random puzzles."""
    draw = torch.Generator().manual_seed(0)

    def integers(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, most, (count, *shape), generator=draw, dtype=torch.int32)

    return [
        {
            "inputs": integers(sizes.vocab_size, sizes.seq_len),
            "labels": integers(sizes.vocab_size, sizes.seq_len),
            "puzzle_identifiers": integers(sizes.num_puzzle_identifiers),
        }
        for _ in range(number)
    ]


def pair_of(arch: ArchConfig) -> tuple[Learner, PlainLearner]:
    """Ours and the peer, with the same weights and the same random numbers to come."""
    config = TrainConfig(arch=arch, global_batch_size=BATCH, lr=2e-3, lr_warmup_steps=0, puzzle_emb_lr=1e-2)
    model = build_model(arch, SIZES, generator=torch.Generator().manual_seed(1))
    assert model.table is not None
    model.table.weights.normal_(generator=torch.Generator().manual_seed(2))
    ours = learner_of(model, config, 1000)
    ours.generator = torch.Generator().manual_seed(3)
    return ours, PlainLearner(arch, SIZES, model.state_dict(), config, torch.Generator().manual_seed(3))


def rates(learner: Learner) -> tuple[float, float]:
    """Learning rates of the table and of the trunk."""
    return learner.config.puzzle_emb_lr, learner.config.lr


def same_losses(arch: ArchConfig) -> str:
    """Check that both find the same losses, in training and in evaluation, and say how far apart they are."""
    ours, plain = pair_of(arch)
    drawn, ranks = batches(SIZES, BATCH), Ranks()
    count = sum(value.numel() for _, value in ours.model.trunk_parameters())
    far = [apart(evaluated(ours.model, drawn[0]), plain.evaluate(drawn[0]))]
    for batch in drawn[:COMPARED]:
        expected = {name: value / BATCH for name, value in plain.step(batch, rates(ours)).items() if name.endswith("loss")}
        logged = {name.removeprefix("train/"): value for name, value in train_step(ours, batch, ranks).items()}
        far.append(apart({name: logged[name] for name in expected}, expected))
    assert ours.model.table is not None
    far.append(float((ours.model.table.weights - plain.model.puzzle_emb.weights).abs().mean()))  # a sum near zero may have either sign
    if max(far) > TOLERANCE:
        sys.exit(f"The peer does not compute what ours does: differences of {far}.")
    return (
        f"{count:,} parameters, losses apart by {far[0]:.0e} in evaluation, {far[1]:.0e} in "
        f"the first step, {max(far[2:-1]):.0e} at most in {COMPARED} steps"
    )


def apart(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The greatest relative difference of losses."""
    return max(abs(float(found[name]) / float(value) - 1) for name, value in expected.items() if name.endswith("loss"))


@torch.inference_mode()
def evaluated(model: TinyRecursiveModel, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The metrics of a batch after all supervision steps, as `sttrl.trm.evaluate` finds them."""
    model.eval()
    carry = model.initial_carry(batch)
    for _ in range(model.arch.halt_max_steps):
        carry, outputs = model(carry, batch)
    return act_loss(outputs, carry, model.arch.loss.loss_type)[1]


def works(arch: ArchConfig) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """What is measured, of ours and of the peer. The optimisers' learning rate is 0, which takes as long as any other."""
    ours, plain = pair_of(arch)
    drawn, ranks, taken = batches(SIZES, BATCH), Ranks(), [0, 0]

    def following(who: int) -> dict[str, torch.Tensor]:
        taken[who] += 1
        return drawn[taken[who] % POOL]

    still, plain_still = pair_of(arch)
    accumulated(still, drawn[0], BATCH, ranks)
    _, loss, _ = plain_still.model(plain_still.model.initial_carry(drawn[0]), drawn[0], plain_still.generator)
    loss.backward()
    assert still.table is not None and still.trunk is not None
    optimisers = (still.table, still.trunk)
    return {
        "optimiser step": (lambda: train_step(ours, following(0), ranks), lambda: plain.step(following(1), rates(ours))),
        "evaluation": (lambda: evaluated(ours.model, drawn[0]), lambda: plain.evaluate(drawn[0])),
        "optimisers alone": (lambda: [optimiser.step(0.0) for optimiser in optimisers], lambda: plain_still.update((0.0, 0.0))),
    }


class Product:
    """A square product in float32, the limit of everything that multiplies matrices."""

    def __init__(self, size: int) -> None:
        self.size, self.flops = size, 2.0 * size**3
        self.factors = [torch.randn(size, size, generator=torch.Generator().manual_seed(at)) for at in (0, 1)]

    def __call__(self) -> object:
        return self.factors[0] @ self.factors[1]


def in_turns(work: Sequence[Callable[[], object]], rounds: int) -> list[Times]:
    """Times of each in every round, after two rounds that do not count. Every other round goes backwards, so that none is always first."""
    found = [Times(cpu=[], wall=[]) for _ in work]
    for number in range(2 + rounds):
        order = range(len(work)) if number % 2 else reversed(range(len(work)))
        for at in order:
            cpu, wall = time.process_time(), time.perf_counter()
            work[at]()
            if number >= 2:
                found[at].cpu.append(time.process_time() - cpu)
                found[at].wall.append(time.perf_counter() - wall)
    return found


def compared(ours: Times, plain: Times, fewest: float) -> list[str]:
    """The cells of a row. ``fewest``: the seconds that the work would take at the limit; 0: it multiplies no matrices."""
    cells = list[str]()
    for a, b in ((ours.cpu, plain.cpu), (ours.wall, plain.wall)):
        ratios = [theirs / own for own, theirs in zip(a, b, strict=True)]
        cells += [spread([1000 * value for value in a], 1), spread([1000 * value for value in b], 1), spread(ratios, 2, "x")]
    return cells + [f"{fewest / median(times.cpu):.0%}" if fewest else "" for times in (ours, plain)]


def spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    """The median, and the quartiles."""
    first, _, third = quantiles(values, n=4, method="inclusive")
    return f"{median(values):.{digits}f}{unit} ({first:.{digits}f} - {third:.{digits}f})"


def net_flops(arch: ArchConfig, sizes: Sizes) -> float:
    """Operations of the matrix products of one application of the network to one sequence."""
    from sttrl.trm.layers import inner_size

    positions, width = arch.puzzle_tokens + sizes.seq_len, arch.hidden_size
    channels = 6.0 * positions * width * inner_size(width, arch.expansion)
    if arch.mlp_t:
        mixing = 6.0 * width * positions * inner_size(positions, arch.expansion)
    else:
        mixing = 8.0 * positions * width**2 + 4.0 * positions**2 * width
    return arch.L_layers * (channels + mixing)


def head_flops(arch: ArchConfig, sizes: Sizes) -> float:
    """The same of the head on the cells."""
    return 2.0 * sizes.seq_len * arch.hidden_size * sizes.vocab_size


def step_flops(arch: ArchConfig, sizes: Sizes = SIZES, batch: int = BATCH) -> float:
    """The same of an optimiser step: a backward pass costs two forward passes, and only the last cycle has one."""
    applications = (arch.H_cycles + 2) * (arch.L_cycles + 1)
    return batch * (applications * net_flops(arch, sizes) + 3 * head_flops(arch, sizes))


def evaluation_flops(arch: ArchConfig, sizes: Sizes = SIZES, batch: int = BATCH) -> float:
    """The same of an evaluation of a batch."""
    applications = arch.H_cycles * (arch.L_cycles + 1)
    return batch * arch.halt_max_steps * (applications * net_flops(arch, sizes) + head_flops(arch, sizes))


def profiled(work: Callable[[], object]) -> str:
    """The largest entries of a profile."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(3):
            work()
    entries = sorted(profiler.key_averages(), key=lambda entry: -entry.self_cpu_time_total)
    total = sum(entry.self_cpu_time_total for entry in entries)
    return ", ".join(
        f"{entry.key.removeprefix('aten::')} {entry.self_cpu_time_total / total:.0%} ({entry.count // 3})" for entry in entries[:SHOWN]
    )


def recorded(form: str) -> list[str]:
    """What was once recorded of the original itself, where the record is; another machine, so not to be compared with these times."""
    file = GOLDEN / "trm" / "peer_timing.md"
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    cells = next(row for row in rows if row[0].startswith(RECORDED[form]))
    return [
        f"The original itself, {form}, on another machine (median / min CPU ms of its record, several runs): step {cells[2]}, of which "
        f"optimisers {cells[3]}; evaluation {cells[5]}."
    ]


def memory(given: argparse.Namespace) -> None:
    """Two optimiser steps and one evaluation of the 7M model on sequences of ARC; ends with 1 if they take too much memory."""
    count = 1 if given.quick else given.batch
    config = read_config(CONFIGS / "arc1.yaml", [f"global_batch_size={count}"])
    arch = dataclasses.replace(config.model_arch, forward_dtype=forward_dtype(config, "cpu"))
    rows = [["Python and torch", "", f"{peak_gib():.2f}", ""]]
    model = build_model(arch, ARC_SIZES, generator=torch.Generator().manual_seed(1))
    learner, drawn, ranks = learner_of(model, config, 1000), batches(ARC_SIZES, count), Ranks()
    product = Product(512 if given.quick else 2048)
    limit = product.flops / min(in_turns([product], 5)[0].wall)
    if given.quick:
        model.arch = arch = dataclasses.replace(arch, halt_max_steps=1)
    flops = step_flops(arch, ARC_SIZES, count), evaluation_flops(arch, ARC_SIZES, count)
    for what, operations, work in (
        ("optimiser step 1", flops[0], lambda: train_step(learner, drawn[0], ranks)),
        ("optimiser step 2", flops[0], lambda: train_step(learner, drawn[1], ranks)),
        (f"evaluation, {arch.halt_max_steps} supervision steps", flops[1], lambda: evaluated(model, drawn[2])),
    ):
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        rows.append([what, f"{seconds:.1f}", f"{peak_gib():.2f}", f"{operations / seconds / limit:.0%}"])
    trunk = sum(value.numel() for _, value in model.trunk_parameters())
    notes = (
        f"configs/trm/arc1.yaml: {trunk / 1e6:.2f} M parameters, {ARC_SIZES.num_puzzle_identifiers} puzzle rows, {arch.puzzle_tokens} + "
        f"{ARC_SIZES.seq_len} positions, batch {count}, {arch.forward_dtype}, {torch.get_num_threads()} thread(s), EMA. Peak: the largest "
        f"resident memory of the process so far, to be below {MOST_GIB:.0f} GiB. Limit: a product of two square matrices of "
        f"{product.size}, {limit / 1e9:.0f} GFLOP/s."
    )
    show("TRM, memory", ["what", "seconds", "peak, GiB", "of the limit"], rows, notes, given.save)
    if peak_gib() >= MOST_GIB:
        sys.exit(f"The peak is {peak_gib():.2f} GiB, and {MOST_GIB:.0f} is the most.")


def peak_gib() -> float:
    """The largest resident memory of this process so far. Linux counts in KiB, macOS in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2 ** (30 if sys.platform == "darwin" else 20)


if __name__ == "__main__":
    main()
