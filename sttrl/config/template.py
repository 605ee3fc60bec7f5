"""The settings that users give to a model's chat template."""

from __future__ import annotations

import json
from typing import Any

from sttrl.errors import UsageError

OWN_SETTINGS = frozenset({"messages", "add_generation_prompt", "continue_final_message"})
"""What every prompt sets by itself; users may not change it."""


def template_settings(text: str | None) -> dict[str, Any]:
    """The settings in ``--chat_template_kwargs``, none for None. Raises `UsageError` unless it is a JSON object with other names."""
    try:
        settings = {} if text is None else json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UsageError(f"--chat_template_kwargs {text!r} is no JSON object.", """Write it like '{"enable_thinking": false}'.""")
    for name in settings:
        if name in OWN_SETTINGS:
            raise UsageError(f"--chat_template_kwargs {text!r} sets {name!r}, which every prompt sets itself.", "Leave it out.")
    return settings
