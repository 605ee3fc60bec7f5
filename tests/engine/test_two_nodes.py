"""Two nodes of a Ray cluster that share no folder but the software and the model: each has mounts and processes of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_engine import everything

pytestmark = [pytest.mark.slow, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
MOST_SECONDS = 1200
"""What takes longer hangs."""
QUESTIONS = 6
SWEEP = f"""
name: nodes
base:
  {{dataset: arithmetic-demo, limit: {QUESTIONS}, steps: 2, n_votes: 8, n_train: 8, val_samples: 4, max_response_tokens: 8, ties: first,
   lr: 0.01, dtype: float32, deterministic: true}}
axes: {{seed: [1, 2]}}
"""
RUNS = ("seed1", "seed2")
TOO_BUSY = 75
"""Exit code of a node on which Ray did not start."""
START = (
    "{ray} start --disable-usage-stats --include-log-monitor false --num-cpus 2 --object-store-memory 100000000"
    " --min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port 0"
)
OWN_FOLDERS = "set -e; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs {own}; export TMPDIR={own}"
HEAD = f"""{OWN_FOLDERS}
{START} --head --port 0 --node-ip-address 127.0.0.2 --include-dashboard false --no-monitor --temp-dir {{own}} >&2 || exit {TOO_BUSY}
cp {{own}}/ray_current_cluster {{meeting}}/half; mv {{meeting}}/half {{meeting}}/address
until [ -e {{meeting}}/joined ]; do sleep 0.2; done
export RAY_ADDRESS=$(cat {{meeting}}/address)
{{command}} --lanes 2
"""
NODE = f"""{OWN_FOLDERS}; mount -t tmpfs tmpfs {{output}}
until [ -e {{meeting}}/address ]; do sleep 0.2; done
{START} --address $(cat {{meeting}}/address) --node-ip-address 127.0.0.3 >&2 || exit {TOO_BUSY}
touch {{meeting}}/joined
sleep infinity
"""
AGAIN = f"""for wait in 0 30 60; do sleep $wait; "$@"; code=$?; [ $code = {TOO_BUSY} ] || exit $code; done; exit {TOO_BUSY}"""
"""On a busy machine Ray gives up before its processes have started; what is left of a try ends with its namespaces."""


@dataclass(frozen=True)
class Place:
    """Folders of a test: a short one that each node covers with its own, one through which the nodes meet, and the command's output."""

    own: Path
    meeting: Path
    output: Path
    command: str

    def start(self, script: str, stderr: int) -> subprocess.Popen[str]:
        """A shell script on a node of its own."""
        text = script.format(ray=Path(sys.executable).with_name("ray"), **vars(self))
        command = ["bash", "-c", AGAIN, "again", *APART, "bash", "-c", text]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, text=True, errors="replace", start_new_session=True
        )


@pytest.fixture
def place(tiny_model: Path, tmp_path: Path) -> Iterator[Place]:
    try:
        tried = subprocess.run([*APART, "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"nodes cannot be kept apart here: {error}")
    if tried.returncode:
        pytest.skip(f"nodes cannot be kept apart here: {tried.stderr.strip()}")
    (tmp_path / "nodes.yaml").write_text(SWEEP)
    for name in ("meeting", "apart", "alone"):
        (tmp_path / name).mkdir()
    own = Path(tempfile.mkdtemp(prefix="stn-", dir="/tmp"))  # the path of a socket has to be short
    command = f"{sys.executable} {ROOT}/main.py sweep {tmp_path}/nodes.yaml --model {tiny_model} --output_dir"
    yield Place(own, tmp_path / "meeting", tmp_path / "apart", f"{command} {tmp_path}/apart")
    shutil.rmtree(own)


def alone(place: Place) -> Path:
    """The same sweep by one lane on one node; the folder of its runs."""
    folder = place.output.with_name("alone")
    command = place.command.replace(str(place.output), str(folder)).split()
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    assert done.returncode == 0, done.stderr
    return folder / "nodes"


def pull_out(node: subprocess.Popen[str]) -> None:
    """End all processes of a node at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def samplers(run: Path) -> int:
    """How many samplers a run has logs of."""
    return sum(":actor_name:Sampler" in file.read_text() for file in (run / "logs" / "attempt_1").glob("*.err"))


def test_lanes_on_two_nodes_do_what_one_node_does_and_one_of_them_may_die(place: Place) -> None:
    """The second node dies in the second run, with a question of that run under way."""
    node, head = place.start(NODE, subprocess.DEVNULL), place.start(HEAD, subprocess.PIPE)
    said: list[str] = []
    limit = threading.Timer(MOST_SECONDS, pull_out, [head])
    limit.start()
    try:
        assert head.stderr is not None
        for line in head.stderr:
            said.append(line)
            if sum(one.startswith("[1/") for one in said) == len(RUNS) and node.poll() is None:
                pull_out(node)
        assert head.wait() == 0, "".join(said)
    finally:
        limit.cancel()
        pull_out(head)
        pull_out(node)
    whole, found = alone(place), place.output / "nodes"
    for run in RUNS:
        assert everything(found / run) == everything(whole / run)
        assert len(list((found / run).glob("adapters/*/*.safetensors"))) == QUESTIONS
    assert any("goes to another lane. Lane 2 of 2 is lost" in line for line in said), "".join(said)
    assert (samplers(whole / "seed1"), samplers(found / "seed1")) == (1, 2), "logs come from both nodes"
