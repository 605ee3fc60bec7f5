"""Model folders as transformers reads and writes them: loading the network, tying its head, writing a folder completely or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sttrl.errors import EngineError, UsageError, error_text, write_fault
from sttrl.ledger.files import make_folder, settle_folder


def check_target(folder: Path) -> None:
    """Raises `UsageError` for a folder that has something in it, or that is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--out {folder} exists and is not an empty folder.", "Choose another, or delete it.")


def load_network(folder: Path) -> Any:
    """The causal language model of a folder, in its own dtype. Raises `EngineError` where weights are missing or damaged."""
    from transformers import AutoModelForCausalLM

    try:
        with no_progress_bars():
            network, found = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineError(f"{folder} cannot be loaded: {error_text(error, first_line=True)}.", "Choose a complete model folder.") from error
    if missing := sorted(found["missing_keys"]):
        raise EngineError(f"{folder} lacks weights: {', '.join(missing[:3])}.", "Choose a complete model folder.")
    return network


def head_is_tied(network: Any) -> bool:
    """Whether head and embeddings are one weight."""
    return network.get_output_embeddings().weight is network.get_input_embeddings().weight


def untie_head(network: Any) -> None:
    """Give the head a copy of the embeddings that it was tied to."""
    head = network.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    _set_tied(network, False)


def tie_head(network: Any) -> None:
    """Let the head be the embeddings."""
    network.get_output_embeddings().weight = network.get_input_embeddings().weight
    _set_tied(network, True)


def _set_tied(network: Any, tied: bool) -> None:
    for settings in (network.config, network.config.get_text_config(decoder=True)):
        settings.tie_word_embeddings = tied


def write_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder beside ``target``, which gets the target's name when it is complete.

    What a killed command has left of such a folder is replaced. Raises `UsageError` where it cannot be written.
    """
    made = target.absolute().with_name(f".{target.absolute().name}.unfinished")
    try:
        try:
            shutil.rmtree(made, ignore_errors=True)
            make_folder(made)
            with no_progress_bars():
                write(made)
            settle_folder(made, target.absolute())
        except Exception as error:
            fault = write_fault(error)
            if fault is None:
                raise
            raise UsageError(f"Cannot write --out {target}: {fault.strerror or fault}.", "Make room or choose another folder.") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers' progress bars off the screen."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
