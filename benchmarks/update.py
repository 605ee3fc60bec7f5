"""Updates of the learner: the prompt once against every row spelled out, share of the matmul limit, forks made and discarded.

    python benchmarks/update.py [--model builtin/SmolLM2-135M-Instruct] [--dtype auto] [--save]

One learner rank in this process, without Ray. Every ratio is of one run on one machine.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from table import matmul_limit, show, timed, typical

GROUPS = ((45, 32, 24), (45, 32, 69), (1024, 8, 64))
"""(prompt tokens, responses, tokens of each)."""
DIFFERENT = 8
"""Responses that differ where others are equal to them, as those of a policy that has come to agree."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="builtin/SmolLM2-135M-Instruct")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="as main.py's (default: auto)")
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given = parser.parse_args()
    from sttrl.engine.environment import choose_dtype
    from sttrl.engine.processes import SHARED_CORES
    from sttrl.engine.verl.worker_group import alone

    place = tempfile.TemporaryDirectory()
    os.environ |= {"VERL_PLATFORM": "cpu", **SHARED_CORES, **alone(Path(place.name, "meeting"))}
    dtype = choose_dtype(given.dtype, "cpu")
    from sttrl.engine.verl.worker import PASS_TOKENS

    limit = matmul_limit(dtype)
    lora, rows = learner(given.model, dtype, 16), list[list[str]]()
    parameters = sum(p.numel() for n, p in lora.engine.module.named_parameters() if "lora_" not in n)
    for prompt, count, length in GROUPS:
        packed = seconds(lora, prompt, count, length)
        lora.engine.packs = False
        spelled = seconds(lora, prompt, count, length)
        lora.engine.packs = True
        share = 6 * parameters * (prompt + count * length) / packed / 1e9 / limit
        what = f"update of {count} x ({prompt} + {length}) tokens"
        rows.append([what, f"{packed:.2f} s", f"{spelled:.2f} s spelled out", f"{spelled / packed:.1f}x", f"{share:.0%} of the limit"])
    with_kl = seconds(lora, *GROUPS[0], kl_coef=0.001)
    without = seconds(lora, *GROUPS[0])
    rows.append(
        ["the same with the pass for the base's log-probs", f"{with_kl:.2f} s", f"{without:.2f} s without", f"{with_kl / without:.2f}x", ""]
    )
    alike = seconds(lora, *GROUPS[0], different=DIFFERENT)
    rows.append(
        [f"the same, {DIFFERENT} different responses", f"{alike:.2f} s", f"{without:.2f} s all different", f"{without / alike:.2f}x", ""]
    )
    other = "float32" if dtype == "bfloat16" else "bfloat16"
    slower = seconds(learner(given.model, other, 16), *GROUPS[0])
    rows.append(["the same, beside the other dtype", f"{without:.2f} s", f"{slower:.2f} s in {other}", f"{slower / without:.2f}x", ""])
    rows.append(["fork and discard, LoRA 16", f"{1000 * fork(lora, 'lora'):.0f} ms", "", "", ""])
    full = learner(given.model, dtype, 0)
    rows.append(["fork and discard, full weights, one update between", f"{fork(full, 'full'):.2f} s", "", "", ""])
    notes = (
        f"In {dtype}. Limit: a product of two 2048 x 2048 matrices, {limit:.0f} GFLOP/s. Share: 6 x {parameters / 1e6:.0f} M parameters x "
        f"the tokens computed (the prompt once), over the seconds and the limit. LoRA 16, at most {PASS_TOKENS['cpu']} response "
        "tokens in a micro-batch (where spelled out, all tokens), no KL term but in its row. Median of 3 updates after one that does not "
        "count."
    )
    show("Updates", ["what", "ours", "peer", "ratio", "limit"], rows, notes, given.save)


def learner(name: str, dtype: Any, rank: int) -> Any:
    """A learner in this process."""
    from sttrl.engine.base import AdapterShape, EngineSettings
    from sttrl.engine.models import load_tokenizer, model_folder, stop_token_ids
    from sttrl.engine.verl.learner import Learner

    folder = model_folder(name, False)
    settings = EngineSettings(
        model_folder=str(folder), device="cpu", dtype=dtype, adapter=AdapterShape(rank=rank, alpha=32) if rank else None,
        learner_ranks=1, max_model_len=2048, max_num_seqs=64, kv_cache_mib=64, gpu_memory_utilization=0.4, micro_batch_tokens=None,
        max_forks=1, separate_reference=False, trust_remote_code=False, trains=True,
        stop_token_ids=stop_token_ids(folder, load_tokenizer(folder)),
    )  # fmt: skip
    return Learner(settings)


def group(prompt: int, count: int, length: int, different: int | None = None) -> Any:
    """Rows of random tokens behind one prefix; ``different``: so many rows, each several times."""
    from sttrl.types import Row, TrainGroup

    draw = random.Random(0)
    token_GT = [tuple(draw.randrange(5, 40000) for _ in range(length)) for _ in range(different or count)]
    token_GT = [token_GT[i % len(token_GT)] for i in range(count)]
    ones, heard = (1.0,) * length, (-10.0,) * length
    row_G = tuple(
        Row(token_T=token_T, weight_T=ones, sampler_logprob_T=heard, advantage_T=((1.0, -1.0)[i % 2],) * length)
        for i, token_T in enumerate(token_GT)
    )
    return TrainGroup(prefix_T=tuple(range(100, 100 + prompt)), row_G=row_G)


def seconds(worker: Any, prompt: int, count: int, length: int, different: int | None = None, **changes: Any) -> float:
    """Median seconds of an update."""
    from sttrl.types import DeltaSpec, Objective

    data, objective = [group(prompt, count, length, different)], replace(Objective(kl_coef=0.0, max_logprob_gap=1e9), **changes)
    worker.open_fork("timed", DeltaSpec(kind="lora", lr={"main": 1e-4}, total_steps=10))
    try:
        return typical(lambda: worker.update("timed", data, objective))
    finally:
        worker.close_fork("timed")


def fork(worker: Any, kind: Any) -> float:
    """Median seconds to open and close a fork that an update has changed in between (the update's own seconds are not in it)."""
    from sttrl.types import DeltaSpec, Objective

    small, parts = [group(45, 4, 8)], list[float]()

    def one() -> None:
        opened = timed_once(lambda: worker.open_fork("timed", DeltaSpec(kind=kind, lr={"main": 1e-4}, total_steps=10)))
        worker.update("timed", small, Objective(kl_coef=0.0, max_logprob_gap=1e9))
        parts.append(opened + timed_once(lambda: worker.close_fork("timed")))

    timed(one, 3)
    return sorted(parts[1:])[1]


def timed_once(work: Any) -> float:
    """Seconds of one call."""
    import time

    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
