"""The one line that an engine which does not start leaves: its real cause, wherever the error says it."""

from __future__ import annotations

import os
from pathlib import Path

import pydantic
import pytest

from sttrl.engine import failures
from sttrl.engine.failures import cause, last_error, starting
from sttrl.errors import EngineError, OutOfMemoryError

CORE_LOG = """\
(EngineCore pid=4711) ERROR 11-25 17:05:31 [core.py:1136] EngineCore failed to start.
(EngineCore pid=4711) ERROR 11-25 17:05:31 [core.py:1136] Traceback (most recent call last):
(EngineCore pid=4711) ERROR 11-25 17:05:31 [core.py:1136]   File "core.py", line 1110, in run_engine_core
(EngineCore pid=4711) ERROR 11-25 17:05:31 [core.py:1136] ValueError: To serve at least one request, 3.0 GiB KV cache is needed.
Process EngineCore:
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""


def raised(error: BaseException, by: BaseException | None = None) -> BaseException:
    try:
        raise error from by
    except BaseException as caught:
        return caught


def complaint_of_pydantic() -> Exception:
    class Settings(pydantic.BaseModel):
        size: int

        @pydantic.field_validator("size")
        @classmethod
        def fits(cls, value: int) -> int:
            raise ValueError("Model architectures ['FooForCausalLM'] are not supported for now.")

    with pytest.raises(pydantic.ValidationError) as caught:
        Settings(size=1)
    return caught.value


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            raised(ValueError("no"), RuntimeError("Error(s) in loading:\n\tsize mismatch")),
            "RuntimeError: Error(s) in loading: size mismatch",
        ),
        (raised(ValueError("type `foo` is unknown."), KeyError("foo")), "ValueError: type `foo` is unknown"),
        (raised(ValueError("it is this"), AssertionError()), "ValueError: it is this"),
        (AssertionError(), "AssertionError"),
        (complaint_of_pydantic(), "ValidationError: Value error, Model architectures ['FooForCausalLM'] are not supported for now"),
    ],
    ids=["its direct cause", "no bare key", "a cause that says nothing", "no text", "pydantic"],
)
def test_the_cause_is_one_line(error: BaseException, said: str) -> None:
    assert cause(error) == said


def test_what_another_process_wrote_is_found_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU vLLM's core is a process of its own: the sampler only hears that it failed."""
    log = tmp_path / f"worker-a-{os.getpid()}.out"
    log.write_text(CORE_LOG)
    (tmp_path / f"worker-a-{os.getpid()}.err").write_text("")
    monkeypatch.setattr(failures, "session_logs", lambda: tmp_path)
    with pytest.raises(EngineError) as caught, starting("sampler"):
        raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    assert caught.value.message == "The sampler did not start: ValueError: To serve at least one request, 3.0 GiB KV cache is needed."
    assert caught.value.hint == f"The rest is in logs/ in the run folder, in worker-a-{os.getpid()}.err."
    assert last_error([]) is None


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried"), OutOfMemoryError("It ran out of memory.")])
def test_a_start_without_memory_ends_the_run_and_says_so(error: Exception) -> None:
    """An `OutOfMemoryError` would cost one question after the other, and none could be done."""
    with pytest.raises(EngineError, match="The learner ran out of memory while it started") as caught, starting("learner"):
        raise error
    assert type(caught.value) is EngineError


def test_an_error_that_is_one_line_already_stays_as_it_is() -> None:
    error = EngineError("Two lanes need four GPUs.", "Use one.")
    with pytest.raises(EngineError) as caught, starting("sampler"):
        raise error
    assert caught.value is error
