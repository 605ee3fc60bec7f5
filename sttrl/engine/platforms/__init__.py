"""verl's ``verl.plugins`` entry point: importing this module registers the CPU platform in every process that imports verl."""

from sttrl.engine.platforms.cpu import CpuPlatform

__all__ = ["CpuPlatform"]
