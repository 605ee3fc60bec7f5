"""The endpoint on the real stack with the embedded model: one server for most tests, one more after a kill, and nothing left of either."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
MARK = "STTRL_TEST_SERVE"
MODEL = "builtin/SmolLM2-135M-Instruct"
LONG_S = 300
"""Nothing that will end takes so long, on however busy a machine."""
FLAGS = [
    *("--model", MODEL, "--port", "0", "--answer_kind", "number", "--ties", "first", "--n_votes", "8", "--n_train", "8"),
    *("--max_response_tokens", "200", "--max_prompt_tokens", "64"),
]
SMALL: Any = {"sttrl": {"steps": 1, "n_votes": 16, "n_train": 16, "max_response_tokens": 8, "lr": 3e-3, "seed": 1}}
SUM: Any = [{"role": "user", "content": "What is 2 + 5? Reply with only the number."}]
STORY: Any = [{"role": "user", "content": "Tell me a long story about a king."}]


class Server:
    """`main.py serve` and everything it starts, which inherits its mark."""

    def __init__(self, folder: Path, name: str) -> None:
        self.mark, self.log = f"{name}-{os.getpid()}", folder / f"log-{name}"
        environment = {**os.environ, MARK: self.mark}
        environment.pop("VERL_PLATFORM", None)
        command = [sys.executable, str(ROOT / "main.py"), "serve", *FLAGS, "--output_dir", str(folder)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while (found := re.search(r"on (http://\S+)/v1 with", self.said())) is None:
            assert self.process.poll() is None, self.said()
            time.sleep(0.1)
        self.url = found[1]
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0, timeout=LONG_S)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def family(self) -> list[str]:
        """Every process that carries the mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:80] or process.name()}")
        return found

    def gauge(self, name: str) -> float:
        """A number of /metrics."""
        text = httpx.get(f"{self.url}/metrics", timeout=LONG_S).text
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]

    def gone(self) -> bool:
        """Whether nothing is left of it, in the end."""
        end = time.monotonic() + LONG_S
        while self.family() and time.monotonic() < end:
            time.sleep(0.5)
        return not self.family()


def until(what: Callable[[], bool]) -> None:
    """Wait until something holds; the test's own limit of time is the only one."""
    while not what():
        time.sleep(0.05)


def shared_memory(process: int) -> list[str]:
    """What a server has in /dev/shm."""
    return sorted(path.name for path in Path("/dev/shm").glob(f"sttrl-{process}-*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder, "first")
    yield server
    if server.process.poll() is None:
        server.process.terminate()
        server.process.wait(LONG_S)


def test_each_kind_of_model_answers(server: Server) -> None:
    chat = server.client.chat.completions
    plain = chat.create(model=MODEL, messages=SUM, temperature=0, max_tokens=8, logprobs=True, top_logprobs=2)
    text, tokens = plain.choices[0].message.content, plain.choices[0].logprobs.content  # type: ignore[union-attr]
    assert text and tokens and "".join(token.token for token in tokens) == text
    assert all(token.top_logprobs[0].token == token.token for token in tokens), "greedily the likeliest is chosen"
    adapted: Any = chat.create(
        model=f"{MODEL}:sttrl", messages=SUM, max_tokens=8, extra_body={"sttrl": {**SMALL["sttrl"], "keep_adapter": True}}
    )
    assert adapted.sttrl["answered_by"] == "adapted" and adapted.usage.adaptation_tokens["trained"] > 0
    kept = chat.create(model=adapted.sttrl["adapter"], messages=SUM, temperature=0, max_tokens=8)
    assert kept.choices[0].message.content == adapted.choices[0].message.content
    voted: Any = chat.create(model=f"{MODEL}:vote", messages=SUM, extra_body={"sttrl": {**SMALL["sttrl"], "lr": None}})
    assert voted.sttrl["vote"]["samples"] >= 8 and voted.choices[0].message.content
    chunks: list[Any] = list(chat.create(model=f"{MODEL}:sttrl", messages=SUM, max_tokens=8, stream=True, extra_body=SMALL))
    assert [c.choices[0].delta.reasoning_content[:7] for c in chunks if hasattr(c.choices[0].delta, "reasoning_content")] == ["step 1:"]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == adapted.choices[0].message.content, "the same seed"


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}:sttrl"])
def test_a_client_that_hangs_up_leaves_nothing_behind(model: str, server: Server) -> None:
    before = shared_memory(server.process.pid)
    more = {} if model == MODEL else {"sttrl": {"steps": 3, "n_votes": 64, "n_train": 8}}
    body = {"model": model, "messages": STORY, **({"n": 16} if model == MODEL else {}), **more}
    gauge = "sttrl_sampling" if model == MODEL else "sttrl_adapting"
    with httpx.Client(timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{server.url}/v1/chat/completions", json=body)
    until(lambda: server.gauge(gauge) == 0)
    answer = server.client.chat.completions.create(model=MODEL, messages=SUM, temperature=0, max_tokens=8)
    assert answer.choices[0].message.content and server.gauge("sttrl_engine_starts") == 1
    metrics = httpx.get(f"{server.url}/metrics").text
    assert f'sttrl_requests_total{{model="{model}",status="499"}} 1.0' in metrics, "it ended because its client left"
    assert shared_memory(server.process.pid) == before
    assert httpx.get(f"{server.url}/health").status_code == 200 and "Traceback" not in server.said()


def test_a_killed_server_goes_on_and_sigterm_leaves_nothing(server: Server, folder: Path) -> None:
    long: Any = {"sttrl": {"steps": 12, "n_votes": 16, "n_train": 16, "max_response_tokens": 8, "lr": 1e-4, "seed": 1}}
    sent: Any = server.client.responses.create(model=f"{MODEL}:sttrl", input=SUM[0]["content"], background=True, extra_body=long)
    asked: Any = {
        "model": f"{MODEL}:sttrl",
        "messages": SUM,
        "extra_body": long,
        "extra_headers": {"Idempotency-Key": "k"},
        "max_tokens": 8,
    }
    with pytest.raises(openai.APITimeoutError):
        server.client.with_options(timeout=1).chat.completions.create(**asked)
    until(lambda: server.gauge("sttrl_adapting") == 2)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(LONG_S)
    again = Server(folder, "again")
    try:
        assert "1 background responses go on" in again.said()
        until(lambda: again.client.responses.retrieve(sent.id).status not in ("queued", "in_progress"))
        found: Any = again.client.responses.retrieve(sent.id)
        assert found.status in ("completed", "incomplete") and found.output_text and found.sttrl["seed"] == 1
        reply: Any = again.client.chat.completions.create(**asked)
        assert reply.choices[0].message.content and again.client.chat.completions.create(**asked) == reply
    finally:
        again.process.send_signal(signal.SIGTERM)
        code = again.process.wait(LONG_S)
    assert code == 0 and again.said().rstrip().endswith("the server has ended"), again.said()
    assert again.gone(), again.family()
    assert not shared_memory(again.process.pid) and not shared_memory(server.process.pid)
    assert not [process for process in server.family() if "Agent" not in process], "Ray's agents hold no model and no core"
