"""Several processes of one training, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import cloudpickle
import pytest
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, as the processes that are started here have. Nothing here needs what is on disk to be synced either."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
    torch.set_num_threads(before)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _child(work: bytes, place: dict[str, str], said: str) -> None:
    shown = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    os.environ.update(place)
    torch.set_num_threads(1)
    os.fsync = lambda file: None
    code = 3
    try:
        found = cloudpickle.loads(work)()
        code = found if isinstance(found, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(work: Callable[[], object], place: Mapping[str, str] = MappingProxyType({}), said: str = os.devnull) -> Any:
    """Do something in another process. It comes from a server without threads, whatever this process has started before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "sttrl.trm.train", "sttrl.report.recursion"])
    child = context.Process(target=_child, args=(cloudpickle.dumps(work), dict(place), said))
    child.start()
    return child


def in_ranks(count: int, work: Callable[[], object]) -> list[int]:
    """Do the same in so many processes, over gloo. Returns their exit codes; what they said is said here."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    with tempfile.NamedTemporaryFile() as said:
        children = [start(work, {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}, said.name) for rank in range(count)]
        for child in children:
            child.join()
        os.write(2, said.read())
    return [child.exitcode for child in children]
