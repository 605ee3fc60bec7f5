"""``serve``: the endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sttrl.cli.parsing import config_file, parse
from sttrl.config import RunConfig
from sttrl.config.yaml_settings import FileSettings, read_yaml
from sttrl.serve.settings import IN_FLIGHT, ServerSettings


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    """Serve a model with OpenAI's API. It adapts to each request; docs/serve.md explains models, fields and limits.

    The settings of a run hold for every request, except those that say what is asked and how it is adapted.
    """

    server: ServerSettings = ServerSettings()
    run: RunConfig = RunConfig()


def serve_command(arguments: Sequence[str]) -> None:
    """``serve --model M [settings]``"""
    config, server = parse_serve(arguments[1:])
    from sttrl.serve.server import serve

    serve(config, server)


def parse_serve(arguments: Sequence[str]) -> tuple[RunConfig, ServerSettings]:
    """The settings that hold for every request, and those of the endpoint. Raises `UsageError`."""
    file = config_file(arguments)
    settings = {"parallel_problems": IN_FLIGHT, **({} if file is None else read_yaml(file))}
    chosen = parse(ServeArguments, arguments, command="serve", default=ServeArguments(run=FileSettings.of(**settings)))
    return RunConfig(**vars(chosen.run)), chosen.server
