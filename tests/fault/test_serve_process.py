"""The endpoint as a process: kill -9 and SIGTERM, what goes on after a restart, and what it refuses to start with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from served_stand_in import HOLD
from serving import MODEL, SETTINGS, ask

from sttrl.cli.serve import parse_serve
from sttrl.config import RunConfig
from sttrl.errors import UsageError
from sttrl.serve.server import session_settings

HERE = Path(__file__).resolve().parent
PLAIN = {name: value for name, value in SETTINGS.items() if name != "instruction"}
FLAGS = ["--model", MODEL, "--port", "0", *(f"--{name}={value}" for name, value in PLAIN.items())]
SMALL: Any = {"sttrl": {"steps": 2, "n_votes": 8, "n_train": 4}}


class Process:
    """The endpoint in a process of its own. ``held``: while this file exists, no update ends."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.held, self.log = folder / "held", folder / "log"
        self.before = len(self.log.read_text().splitlines()) if self.log.exists() else 0
        environment = {**os.environ, HOLD: str(self.held), "PYTHONPATH": os.pathsep.join((str(HERE.parents[1]), str(HERE)))}
        command = [sys.executable, str(HERE / "served_stand_in.py"), "serve", *FLAGS, "--output_dir", str(folder), *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def said(self) -> str:
        """What this process has said."""
        return "\n".join(self.log.read_text().splitlines()[self.before :])

    def client(self) -> openai.OpenAI:
        """A client, once the server listens."""
        while (found := re.search(r"on (http://\S+) with", self.said())) is None:
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        return openai.OpenAI(base_url=found[1], api_key="any", max_retries=0, timeout=120)

    def ends(self) -> int:
        """Its exit code."""
        return self.process.wait(120)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "held").touch()
    yield tmp_path


def wait_for(client: openai.OpenAI, id: str, *status: str) -> Any:
    """The response, when it has this status."""
    while (found := client.responses.retrieve(id)).status not in status:
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_what_a_kill_cuts_goes_on_and_sigterm_ends_in_peace(folder: Path) -> None:
    first = Process(folder)
    client = first.client()
    sent: Any = client.responses.create(model=f"{MODEL}:sttrl", input="What is 9 * 4?", background=True, extra_body=SMALL)
    asked: Any = {"model": f"{MODEL}:sttrl", "input": "What is 2 + 5?", "extra_body": SMALL, "extra_headers": {"Idempotency-Key": "k"}}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=2).responses.create(**asked)
    wait_for(client, sent.id, "in_progress")
    second = Process(folder)
    assert second.ends() != 0 and "Another server uses" in second.said(), "two servers do not share a folder"
    first.process.send_signal(signal.SIGKILL)
    assert first.ends() == -signal.SIGKILL

    (folder / "held").unlink()
    again = Process(folder)
    client = again.client()
    assert "1 background responses go on" in again.said()
    found = wait_for(client, sent.id, "completed", "failed")
    assert found.status == "completed" and found.output_text and found.sttrl["answered_by"] == "adapted"
    reply: Any = client.responses.create(**asked)
    assert reply.output_text and client.responses.create(**asked) == reply

    (folder / "held").touch()
    late: Any = client.responses.create(model=f"{MODEL}:sttrl", input="What is 3 * 3?", background=True, extra_body=SMALL)
    stream: Any = client.chat.completions.create(model=f"{MODEL}:sttrl", messages=ask(), stream=True, extra_body=SMALL)
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    wait_for(client, late.id, "in_progress")
    again.process.send_signal(signal.SIGTERM)
    (folder / "held").unlink()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream), "who is in flight gets the answer"
    assert again.ends() == 0 and again.said().endswith("the server has ended") and "Traceback" not in again.said(), again.said()

    last = Process(folder)
    client = last.client()
    assert wait_for(client, late.id, "completed").output_text and wait_for(client, sent.id, "completed").output_text == found.output_text
    last.process.send_signal(signal.SIGINT)
    assert last.ends() == 0, last.said()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "3"], "--steps does nothing with serve"),
        (["--limit", "3"], "--limit does nothing with serve"),
        (["--adaptation_method", "slot"], "--adaptation_method does nothing with serve"),
        (["--ids", "a"], "--ids does nothing with serve"),
    ],
)
def test_settings_that_do_nothing_are_refused(flags: list[str], said: str) -> None:
    config, _ = parse_serve(flags)
    with pytest.raises(UsageError, match=said):
        session_settings(config)


def test_settings_of_every_request_reach_the_session() -> None:
    config, server = parse_serve(["--model", "m", "--temp", "0.5", "--lanes", "2", "--api_key", "a", "b", "--max_n", "3"])
    assert session_settings(config) == {"temp": 0.5, "lanes": 2, "instruction": "", "parallel_problems": 4}
    assert server.api_key == ("a", "b") and server.max_n == 3 and server.host == "127.0.0.1"
    assert session_settings(RunConfig.of(instruction="Reply."))["instruction"] == "Reply."
