"""Several processes of one training, as torchrun would start them."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Forked children cannot use the threads of their parent. Nothing here needs what is on disk to be synced either."""
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


def in_ranks(count: int, work: Callable[[], object]) -> list[int]:
    """Do the same in so many forked processes, over gloo. Returns their exit codes."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            code = 3
            try:
                os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
                found = work()
                code = found if isinstance(found, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
