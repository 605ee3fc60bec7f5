"""The endpoint: requests that adapt beside the same questions as a run, requests that do not beside vLLM's own server, and a soak.

    python benchmarks/serve.py [--quick] [--questions 16] [--compiled] [--save]
    python benchmarks/serve.py soak [--requests 200] [--save]

Every part is measured on one machine in one go, and servers that are compared take turns. Requests that adapt are streamed: the first
event is the first step. The same question with the same seed is the same work in the endpoint and in a run.

The soak sends requests of all kinds, of which every fifth hangs up at a random moment, and looks at what is left of them afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from endpoint import ROOT, Moment, Reply, Server, ask, bare_vllm, client, served, together
from table import show

if TYPE_CHECKING:
    from sttrl.engine.base import EngineSettings

MODEL = "builtin/SmolLM2-135M-Instruct"
CLIENTS = (1, 4, 16)
SEATS = 4
PROMPT, TOKENS, LONGER = 128, 32, 64
"""The most tokens of a prompt, of a response of a policy that adapts, and of a response of ``M``."""
ADAPTING = {"steps": 1, "n_votes": 8, "n_train": 8, "max_response_tokens": TOKENS, "seed": 0}
WARM = SEATS
"""Questions at the start that do not count: a run's first ones wait until the learner is loaded."""
ROUNDS = 2
ABORTED = 0.2
IN_FLIGHT = 8
"""Clients of the soak."""
KINDS = {"M": 0.5, "M:sttrl": 0.2, "M:vote": 0.2, "kept adapter": 0.1}
"""The shares of the soak's requests."""
NAMES = {"ray::TrainingRank": "learner", "ray::Sampler": "sampler"}
"""By how a process's name begins."""
MIB = 1 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("compare", "soak"), default="compare")
    parser.add_argument("--questions", type=int, default=16, help="questions that each number of clients asks a policy that adapts")
    parser.add_argument("--quick", action="store_true", help="4 questions, one round, 4 clients only")
    parser.add_argument("--compiled", action="store_true", help="vLLM's server with compiled code instead of eagerly, as ours runs on CPU")
    parser.add_argument("--requests", type=int, default=200, help="of the soak")
    parser.add_argument("--only", choices=("adapting", "M"), help="only one of the two comparisons")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="as main.py's (default: auto)")
    parser.add_argument("--save", action="store_true", help="also keep the tables under benchmarks/results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-benchmark-") as folder:
        if given.what == "soak":
            soak(Path(folder), given)
        else:
            compare(Path(folder), given)


def questions(count: int) -> list[str]:
    """The first questions of arithmetic-demo."""
    from sttrl.data.arithmetic import arithmetic_rows

    rows = arithmetic_rows()
    return [str(rows[place % len(rows)]["question"]) for place in range(count)]


def flags(folder: Path, dtype: str) -> list[str]:
    """The flags of the endpoint."""
    lengths = [f"--max_prompt_tokens={PROMPT}", f"--max_response_tokens={LONGER}"]
    return [f"--model={MODEL}", f"--output_dir={folder}", f"--dtype={dtype}", f"--parallel_problems={SEATS}", "--max_waiting=64", *lengths]


def compare(folder: Path, given: argparse.Namespace) -> None:
    """Both comparisons."""
    from sttrl.engine.environment import choose_dtype

    dtype = choose_dtype(given.dtype, "cpu")
    clients, count = ((4,), 4) if given.quick else (CLIENTS, given.questions)
    load = os.getloadavg()[0]
    with served(flags(folder, dtype)) as ours:
        print(f"the endpoint serves after {ours.started_s:.1f} s", file=sys.stderr)
        if given.only != "M":
            adapting(folder, ours, clients, count, dtype, load, given.save)
        if given.only != "adapting":
            plain(ours, clients, 1 if given.quick else ROUNDS, dtype, given.compiled, load, given.save)


def adapting(folder: Path, ours: Server, clients: Sequence[int], count: int, dtype: str, load: float, save: bool) -> None:
    """Requests to ``M:sttrl`` beside a run with the same questions, settings and seeds."""
    rows, texts = [], questions(WARM + count)
    runs: dict[int, tuple[float, float]] = {}
    asyncio.run(asked(ours, f"{MODEL}:sttrl", texts[:WARM], SEATS, sttrl=ADAPTING, max_tokens=TOKENS))
    for number in clients:
        seats = min(number, SEATS)
        work = partial(asked, ours, f"{MODEL}:sttrl", texts, number, stream=True, sttrl=ADAPTING, max_tokens=TOKENS)
        found, done = asyncio.run(work())
        if seats not in runs:
            runs[seats] = an_hour(run(folder, texts, seats, dtype))
        (rate, cpu), (peer_rate, peer_cpu) = an_hour(done), runs[seats]
        figures = f"{median(r.first_s for r in found[WARM:]):.1f}", f"{median(r.seconds for r in found[WARM:]):.1f}"
        rows.append([
            str(number), *figures, f"{rate:.0f}", f"{peer_rate:.0f}", f"{rate / peer_rate:.0%}", f"{cpu:.1f}", f"{peer_cpu:.1f}",
            f"{cpu / peer_cpu - 1:+.0%}",
        ])  # fmt: skip
    notes = (
        f"{count} questions of arithmetic-demo, SmolLM2-135M in {dtype}, LoRA 16, {ADAPTING['steps']} step of {ADAPTING['n_votes']} "
        f"samples of at most {TOKENS} tokens, each evaluation a greedy response and a sample. The endpoint has {SEATS} seats; the run has "
        f"as many questions in flight as there are clients, at most {SEATS}. Of both the time counts from the end of the {WARM}th question "
        f"of {WARM + count} on. The load before: {load:.1f}."
    )
    columns = [
        "clients", "first event, s", "answer, s", "requests an hour", "as a run", "endpoint / run", "CPU s a request", "as a run", "more",
    ]  # fmt: skip
    show("Endpoint, adapting", columns, rows, notes, save)


def an_hour(done: Sequence[Moment]) -> tuple[float, float]:
    """Questions an hour, and CPU seconds a question, from the beginning and the end of each; those to warm up do not count."""
    count, first, last = len(done) - 1 - WARM, done[WARM], done[-1]
    return count / (last.wall_s - first.wall_s) * 3600, (last.cpu_s - first.cpu_s) / count


async def asked(server: Server, model: str, texts: Sequence[str], number: int, **body: Any) -> tuple[list[Reply], list[Moment]]:
    """The replies to these questions by so many clients, and the moments of the server; see `together`."""
    async with client() as http:
        return await together(number, [partial(ask, http, server.url, model, text, **body) for text in texts], server.pid)


def run(folder: Path, texts: Sequence[str], in_flight: int, dtype: str) -> list[Moment]:
    """The beginning and the end of each question of a run that does what the endpoint does for these questions."""
    from sttrl.library.session import question_id

    asked_as = [[{"role": "user", "content": text}] for text in texts]
    data, name = folder / "questions.jsonl", f"run_{in_flight}"
    data.write_text("".join(f"{json.dumps({'id': question_id(q), 'prompt': q})}\n" for q in asked_as), encoding="utf-8")
    settings = {
        **ADAPTING, "model": MODEL, "dataset": data, "output_dir": folder, "run_name": name, "dtype": dtype, "parallel_problems": in_flight,
        "adaptation_method": "sttrl", "val_samples": 1, "instruction": "",
    }  # fmt: skip
    chosen = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "main.py", *chosen, "--no_vote_same_tokens", "--no_save_adapters"]
    said = list[str]()
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert program.stderr is not None
    done = [Moment.of(program.pid)]
    for line in program.stderr:
        said.append(line)
        if re.match(rf"\[\d+/{len(texts)}\] ", line):  # Ray's own lines begin with a bracket too
            done.append(Moment.of(program.pid))
    if (code := program.wait()) or len(done) != 1 + len(texts):
        sys.exit(f"{' '.join(command)}\nended with {code} after {len(done) - 1} questions:\n{''.join(said[-20:])}")
    return done


def plain(ours: Server, clients: Sequence[int], rounds: int, dtype: str, compiled: bool, load: float, save: bool) -> None:
    """Requests to ``M`` beside vLLM's own server, in turns."""
    from sttrl.engine.vllm.sampler import environment

    settings = engine_settings(dtype)
    variables = environment(settings, len(os.sched_getaffinity(0))) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    rows = []
    with bare_vllm(settings.model_folder, settings, variables, compiled) as bare:
        print(f"vLLM's server serves after {bare.started_s:.1f} s", file=sys.stderr)
        for server, model in ((ours, MODEL), (bare, "bare")):
            asyncio.run(asked(server, model, questions(8), 8, max_tokens=LONGER))
        for number in clients:
            texts = [text.replace(" Reply with only the number.", " Explain each step.") for text in questions(max(12, 6 * number))]
            rates, cpus, seconds = (defaultdict[str, list[float]](list) for _ in range(3))
            for _ in range(rounds):
                for server, model in ((ours, MODEL), (bare, "bare")):
                    found, took = asyncio.run(asked(server, model, texts, number, temperature=1.0, max_tokens=LONGER))
                    tokens, first, last = sum(r.tokens for r in found), took[0], took[-1]
                    rates[model].append(tokens / (last.wall_s - first.wall_s))
                    cpus[model].append(tokens / (last.cpu_s - first.cpu_s))
                    seconds[model] += [r.seconds for r in found]
            a, b = (sum(rates[model]) / rounds for model in (MODEL, "bare"))
            times = [f"{median(seconds[model]):.2f}" for model in (MODEL, "bare")]
            c, d = (sum(cpus[model]) / rounds for model in (MODEL, "bare"))
            rows.append([str(number), *times, f"{a:.0f}", f"{b:.0f}", f"{a / b:.0%}", f"{c:.0f}", f"{d:.0f}", f"{c / d:.0%}"])
    how = "with compiled code" if compiled else "eagerly, as ours"
    notes = (
        f"Questions of arithmetic-demo that ask for each step, SmolLM2-135M in {dtype}, temperature 1, at most {LONGER} tokens, no "
        f"streaming; vLLM's server runs {how}, with the same model, dtype, cache, context and most sequences; in turns, {rounds} rounds. "
        f"The load before: {load:.1f}."
    )
    columns = [
        "clients", "answer, s", "vLLM's", "tokens/s", "vLLM's", "ours / vLLM's", "tokens a CPU second", "vLLM's", "ours / vLLM's",
    ]  # fmt: skip
    show("Endpoint, not adapting", columns, rows, notes, save)


def engine_settings(dtype: str) -> EngineSettings:
    """The settings of the endpoint's engine."""
    from sttrl.engine.base import AdapterShape, EngineSettings
    from sttrl.engine.models import model_folder

    return EngineSettings(
        model_folder=str(model_folder(MODEL, False)), device="cpu", dtype="bfloat16" if dtype == "bfloat16" else "float32",
        adapter=AdapterShape(rank=16, alpha=32), learner_ranks=1, max_model_len=PROMPT + LONGER, max_num_seqs=128, kv_cache_mib=256,
        gpu_memory_utilization=0.4, micro_batch_tokens=None, max_forks=1, separate_reference=False, trust_remote_code=False,
        stop_token_ids=(), trains=True,
    )  # fmt: skip


def soak(folder: Path, given: argparse.Namespace) -> None:
    """Requests of all kinds, every fifth of which hangs up, and what is left of them."""
    from sttrl.engine.environment import choose_dtype

    dtype = choose_dtype(given.dtype, "cpu")
    with served(flags(folder, dtype)) as server:
        asyncio.run(soaked(folder, server, given.requests, dtype, given.save))


async def soaked(folder: Path, server: Server, count: int, dtype: str, save: bool) -> None:
    """Send them, look, and print."""
    draw, took, ends = random.Random(0), defaultdict[str, list[float]](list), Counter[str]()
    async with client() as http:
        kept = [await keep(http, server, text) for text in questions(2)]
        looks = {"before": await look(http, folder, server)}
        kinds = draw.choices(list(KINDS), list(KINDS.values()), k=count)
        hung_up = set(draw.sample(range(count), round(ABORTED * count)))

        async def one(place: int) -> None:
            kind, text, stream = kinds[place], draw.choice(questions(32)), draw.random() < 0.5
            model = kept[place % len(kept)] if kind == "kept adapter" else kind.replace("M", MODEL, 1)
            body = {"sttrl": {"steps": 1, "n_votes": 4, "max_response_tokens": 16}} if kind in ("M:sttrl", "M:vote") else {}
            usual = median(took[kind]) if took[kind] else 2.0
            limit = draw.uniform(0.0, usual) if place in hung_up else None
            begun = time.monotonic()
            try:
                async with asyncio.timeout(limit):
                    await ask(http, server.url, model, text, stream=stream, max_tokens=16, **body)
                ends[f"{kind}: answered"] += 1
                took[kind].append(time.monotonic() - begun)
            except TimeoutError:
                ends[f"{kind}: hung up"] += 1
            except RuntimeError as error:
                ends[f"{kind}: {error}"] += 1

        first = min(50, count)
        await together(IN_FLIGHT, [partial(one, place) for place in range(first)], server.pid)
        looks[f"after {first}"] = await look(http, folder, server)
        await together(IN_FLIGHT, [partial(one, place) for place in range(first, count)], server.pid)
        looks[f"after {count}"] = await look(http, folder, server)
    after_first, last = looks[f"after {first}"], looks[f"after {count}"]
    rows = [
        [name, *(f"{at[name]:.0f}" for at in looks.values()), f"{last[name] / after_first[name] - 1:+.1%}" if "MiB" in name else ""]
        for name in last
    ]
    done = ", ".join(f"{name} {number}" for name, number in sorted(ends.items()))
    notes = (
        f"{count} requests by {IN_FLIGHT} clients, half of them streamed, SmolLM2-135M in {dtype}, at most 16 tokens; who adapts takes one "
        f"step of 4 samples. {done}. "
        f"Growth: after {count} requests against after {first}. Sizes are resident sets, when nothing is in flight."
    )
    show("Endpoint, soak", ["what is left", *looks, "growth"], rows, notes, save)


async def keep(http: httpx.AsyncClient, server: Server, text: str) -> str:
    """The name of an adapter that a request has kept. Ends the program if no sample of several tries had an answer."""
    for seed in range(5):
        body = {"steps": 1, "n_votes": 8, "keep_adapter": True, "seed": seed}
        reply = await ask(http, server.url, f"{MODEL}:sttrl", text, sttrl=body, max_tokens=TOKENS)
        if "adapter" in reply.body["sttrl"]:
            return str(reply.body["sttrl"]["adapter"])
    sys.exit("No request kept an adapter.")


async def look(http: httpx.AsyncClient, folder: Path, server: Server) -> dict[str, float]:
    """What requests left behind, when none is in flight any more."""
    numbers = ("sttrl_adapting", "sttrl_waiting", "sttrl_sampling", "sttrl_forks")
    for _ in range(120):
        lines = (await http.get(f"{server.url.removesuffix('/v1')}/metrics")).text.splitlines()
        found = {name: float(line.split()[1]) for line in lines for name in numbers if line.startswith(f"{name} ")}
        if not any(found.values()):
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(3.0)
    program = psutil.Process(server.pid)
    everyone = [program, *program.children(recursive=True)]
    sizes = dict.fromkeys(("server", "sampler", "learner"), 0.0)
    for process in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):  # also of one that has ended and is not reaped yet
            name = "server" if process.pid == server.pid else NAMES.get((process.cmdline() or [""])[0].split(".")[0], "")
            if name:
                sizes[name] += process.memory_info().rss / MIB
    pids = {process.pid for process in everyone}
    in_memory = [
        file for at in Path("/dev/shm").glob("sttrl-*") if int(at.name.split("-")[1]) in pids for file in at.rglob("*") if file.is_file()
    ]
    return {
        "requests in flight": found["sttrl_adapting"] + found["sttrl_waiting"] + found["sttrl_sampling"],
        "forks that the learner holds": found["sttrl_forks"],
        "files in /dev/shm": len(in_memory),
        "folders of requests": len(list(folder.glob("*/requests/*"))),
        "open files of the server": program.num_fds(),
        "threads of the server": program.num_threads(),
        **{f"{name}, MiB": size for name, size in sizes.items()},
    }


if __name__ == "__main__":
    main()
