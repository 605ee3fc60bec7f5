"""The settings that users give to a model's chat template."""

from __future__ import annotations

import json
from typing import Any

from sttrl.errors import UsageError

OWN_SETTINGS = frozenset({"messages", "add_generation_prompt", "continue_final_message"})
"""Settings that the program gives to the template for every prompt; users cannot change them."""


def template_settings(text: str | None) -> dict[str, Any]:
    """The settings in ``--chat_template_kwargs``. Raises `UsageError` if it is not a JSON object or has a name of `OWN_SETTINGS`."""
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
