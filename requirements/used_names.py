"""A mypy plugin: writes down which functions, methods and classes of other packages our files call, with their parameters.

`gpu_names.py` runs mypy with it. A line of the file that ``USED_NAMES`` names is a JSON list: the full name, and the parameters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from mypy.nodes import ArgKind
from mypy.plugin import FunctionSigContext, MethodSigContext, Plugin, ReportConfigContext
from mypy.types import CallableType, FunctionLike, Overloaded

OUTPUT = "USED_NAMES"
"""Environment variable: the file to add to."""
PACKAGES = "USED_PACKAGES"
"""Environment variable: the packages whose names count, with commas between."""
PREFIX = {ArgKind.ARG_STAR: "*", ArgKind.ARG_STAR2: "**"}


def parameters(signature: CallableType) -> list[str]:
    """Each parameter's name, with `=` where it may be left out."""
    named = zip(signature.arg_names, signature.arg_kinds, strict=True)
    return [PREFIX.get(kind, "") + name + "=" * kind.is_optional() for name, kind in named if name]


class UsedNames(Plugin):
    """Looks on; changes no type."""

    def report_config_data(self, ctx: ReportConfigContext) -> Any:
        """Our own files are checked anew each time, other packages come from mypy's cache."""
        return os.urandom(8).hex() if ctx.id.partition(".")[0] == "sttrl" else None

    def get_function_signature_hook(self, fullname: str) -> Callable[[FunctionSigContext], FunctionLike] | None:
        """A function, or a class that is instantiated."""
        return self._noting(fullname)

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        """A method."""
        return self._noting(fullname)

    def _noting(self, fullname: str) -> Callable[[FunctionSigContext | MethodSigContext], FunctionLike] | None:
        if fullname.partition(".")[0] not in os.environ[PACKAGES].split(","):
            return None

        def note(ctx: FunctionSigContext | MethodSigContext) -> FunctionLike:
            signature: FunctionLike = ctx.default_signature
            if f"{os.sep}sttrl{os.sep}" in os.path.abspath(ctx.api.path) and not isinstance(signature, Overloaded):
                assert isinstance(signature, CallableType)
                with open(os.environ[OUTPUT], "a", encoding="utf-8") as file:
                    file.write(json.dumps([fullname, parameters(signature)]) + "\n")
            return signature

        return note


def plugin(version: str) -> type[Plugin]:
    """mypy's entry point."""
    return UsedNames
