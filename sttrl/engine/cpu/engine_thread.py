"""vLLM's engine core in a thread of the sampler's process: on CPU, where a process of its own is 650 MiB and ten seconds of imports.

vLLM starts its core as a child process, or is told by ``client_addresses`` where one already listens; here the latter, and it is a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import Any

from vllm.config import VllmConfig
from vllm.v1.engine import EngineCoreRequestType
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCoreProc, EngineShutdownState
from vllm.v1.engine.utils import EngineZmqAddresses, get_engine_zmq_addresses
from vllm.v1.executor import Executor

LOGGER = logging.getLogger(__name__)


class Core(EngineCoreProc):
    """vLLM's engine core, given its addresses: it need not ask a parent process for them."""

    def __init__(self, config: VllmConfig, addresses: EngineZmqAddresses) -> None:
        self.given = addresses
        super().__init__(config, local_client=True, handshake_address="", executor_class=Executor.get_class(config), log_stats=False)

    @contextmanager
    def _perform_handshakes(self, *_: Any) -> Iterator[EngineZmqAddresses]:
        yield self.given

    def request_shutdown(self) -> None:
        """End the loop, from another thread."""
        self.shutdown_state = EngineShutdownState.REQUESTED
        self.input_queue.put_nowait((EngineCoreRequestType.WAKEUP, None))


class EngineThread:
    """The thread. What stops it later reaches the client as vLLM's own ``EngineDeadError``."""

    def __init__(self, config: VllmConfig) -> None:
        """Returns when the model is loaded; raises what kept it from that."""
        self.config, self.addresses = config, get_engine_zmq_addresses(config)
        loaded: Future[Core] = Future()
        self.thread = Thread(target=self._serve, args=(loaded,), name="vllm-engine-core", daemon=True)
        self.thread.start()
        self.core = loaded.result()

    def client(self) -> AsyncLLM:
        """vLLM's async engine, whose core is this one."""
        where = {"input_address": self.addresses.inputs[0], "output_address": self.addresses.outputs[0]}
        return AsyncLLM.from_vllm_config(self.config, disable_log_stats=True, client_addresses=where)

    def shutdown(self) -> None:
        """End the thread; requests in flight are aborted."""
        self.core.request_shutdown()
        self.thread.join()

    def _serve(self, loaded: Future[Core]) -> None:
        try:
            core = Core(self.config, self.addresses)
        except Exception as error:  # the thread is the boundary; who waits for it raises it
            loaded.set_exception(error)
            return
        loaded.set_result(core)
        try:
            core.run_busy_loop()
        except SystemExit:  # vLLM's word for a loop that was asked to end
            pass
        except Exception:  # the client is told, and raises what vLLM raises for a core that died
            LOGGER.exception("vLLM's engine core stopped.")
            core._send_engine_dead()
        finally:
            core.shutdown()
