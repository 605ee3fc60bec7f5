"""Messages between the judge and its workers: JSON over pipes, each after its length."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
_LARGEST: Final = 1 << 20


class Silence(Exception):
    """No complete message came before the deadline."""


def send(fd: int, message: dict[str, Any]) -> None:
    """Write one message; raises OSError (BrokenPipeError) when the other side is gone."""
    body = json.dumps(message).encode()
    data = memoryview(_LENGTH.pack(len(body)) + body)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int, timeout_s: float | None = None) -> dict[str, Any]:
    """Read one message; raises `Silence` after ``timeout_s`` (None waits for ever) and EOFError when the other side is gone."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    (length,) = _LENGTH.unpack(_read(fd, _LENGTH.size, deadline))
    if length > _LARGEST:
        raise EOFError(f"a message of {length} bytes is none of ours")
    message = json.loads(_read(fd, length, deadline))
    assert isinstance(message, dict)
    return message


def _read(fd: int, size: int, deadline: float | None) -> bytes:
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    while len(data) < size:
        wait_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(wait_ms):
            raise Silence
        part = os.read(fd, size - len(data))
        if not part:
            raise EOFError("the other side is gone")
        data += part
    return data
