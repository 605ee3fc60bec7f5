"""The sampler against bare vLLM on the same requests: tokens a second, eager and compiled.

    python benchmarks/sampler.py [--model builtin/SmolLM2-135M-Instruct] [--rows 9 32 128] [--tokens 32] [--dtype auto] [--compiled]
                                 [--save]

Ours draws every token with the request's own seed and returns its log-prob; bare vLLM draws without seeds. Each engine has a
process of its own, which waits while another is measured: they take turns, so that a slow minute of the machine is everybody's. Both run
eagerly, and with ``--compiled`` bare vLLM is compiled too (this takes a minute at every start).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from table import show

if TYPE_CHECKING:
    from sttrl.engine.base import EngineSettings

TRIES = 8
MARK = "tokens a second: "


def main() -> None:
    """Measure each in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="builtin/SmolLM2-135M-Instruct")
    parser.add_argument("--rows", type=int, nargs="+", default=[9, 32, 128], help="samples of one prompt, taken at once")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="as main.py's (default: auto)")
    parser.add_argument("--compiled", action="store_true", help="also bare vLLM with compiled code")
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    parser.add_argument("--measure", choices=("ours", "bare", "compiled"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        asyncio.run(measure(given.measure, settings_of(given.model, given.dtype, given.rows), given.tokens))
        return
    from sttrl.engine.environment import choose_dtype
    from sttrl.engine.vllm.sampler import environment

    dtype = choose_dtype(given.dtype, "cpu")
    variables = os.environ | environment(settings_of(given.model, dtype, given.rows), len(os.sched_getaffinity(0)))
    flags = ["--model", given.model, "--dtype", dtype, "--tokens", str(given.tokens), "--rows", *map(str, given.rows)]
    engines = {which: started(which, flags, variables) for which in ("ours", "bare", *(["compiled"] if given.compiled else []))}
    found: dict[str, list[float]] = {which: [] for which in engines}
    for count in given.rows:
        rates = [{which: rate(engine, count) for which, engine in engines.items()} for _ in range(1 + TRIES)][1:]
        for which, best in found.items():
            best.append(max(at[which] for at in rates))
    for engine in engines.values():
        engine.communicate("")
    peers = [name for name in found if name != "ours"]
    rows = [
        [str(count), *(f"{found[name][i]:.0f}" for name in found), *(f"{found['ours'][i] / found[name][i]:.0%}" for name in peers)]
        for i, count in enumerate(given.rows)
    ]
    names = {"ours": "ours, seeded, eager", "bare": "bare vLLM, eager", "compiled": "bare vLLM, compiled"}
    columns = ["samples at once", *(f"{names[name]}: tokens/s" for name in found), *(f"ours / {names[name]}" for name in peers)]
    requests = f"A prompt of 45 tokens, {given.tokens} tokens a sample, no early end, log-probs of the sampled tokens"
    notes = f"In {dtype}. {requests}; the best of {TRIES} tries, in turns."
    show("Sampler", columns, rows, notes, given.save)


def started(which: str, flags: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    """A process with one of the engines, ready to sample; its errors go to the screen."""
    command = [sys.executable, __file__, "--measure", which, *flags]
    engine = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
    answer(engine)
    return engine


def rate(engine: subprocess.Popen[str], count: int) -> float:
    """Tokens a second of one request for ``count`` samples."""
    assert engine.stdin
    engine.stdin.write(f"{count}\n")
    engine.stdin.flush()
    return answer(engine)


def answer(engine: subprocess.Popen[str]) -> float:
    """The next number that the engine prints; vLLM prints other lines."""
    assert engine.stdout
    for line in engine.stdout:
        if line.startswith(MARK):
            return float(line.removeprefix(MARK))
    sys.exit("An engine ended; its last words are above.")


def settings_of(model: str, dtype: Any, counts: list[int]) -> EngineSettings:
    """An engine's settings for that many samples."""
    from sttrl.engine.base import AdapterShape, EngineSettings
    from sttrl.engine.models import model_folder

    return EngineSettings(
        model_folder=str(model_folder(model, False)), device="cpu", dtype=dtype, adapter=AdapterShape(rank=16, alpha=32), learner_ranks=1,
        max_model_len=512, max_num_seqs=max(counts), kv_cache_mib=256, gpu_memory_utilization=0.4, micro_batch_tokens=None, max_forks=1,
        separate_reference=False, trust_remote_code=False, stop_token_ids=(), trains=True,
    )  # fmt: skip


async def measure(which: str, settings: EngineSettings, tokens: int) -> None:
    """Sample as many responses as each line of the input says, and print the tokens a second."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    from sttrl.engine.vllm.generation import Generation, engine_args
    from sttrl.types import Request, Sampling

    prompt = list(range(100, 145))
    if which == "ours":
        ours = Generation(settings)

        async def take(count: int) -> int:
            requests = [
                Request(prompt_T=tuple(prompt), sampling=Sampling(temperature=1.0, max_tokens=tokens), seed=i) for i in range(count)
            ]
            sampled = await ours.generate(requests, None, None, alone=True)
            return sum(len(s.token_T) for s in sampled)
    else:
        arguments = engine_args(settings)
        arguments.logits_processors, arguments.logprobs_mode, arguments.enforce_eager = None, "raw_logprobs", which == "bare"
        bare = AsyncLLM.from_engine_args(arguments)
        wish = SamplingParams(
            temperature=1.0, max_tokens=tokens, ignore_eos=True, logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )

        async def take(count: int) -> int:
            await bare.pause_generation(mode="keep", clear_cache=False)
            queues = [await bare.add_request(f"{time.perf_counter_ns()}-{i}", {"prompt_token_ids": prompt}, wish) for i in range(count)]
            await bare.resume_generation()
            return sum([len((await queue.get()).outputs[0].token_ids) for queue in queues])

    print(f"{MARK}0", flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        taken = await take(int(line))
        print(f"{MARK}{taken / (time.perf_counter() - begun)}", flush=True)
    (ours.shutdown if which == "ours" else bare.shutdown)()


if __name__ == "__main__":
    main()
