"""A run: its plan, the asyncio runner, and the handling of failures."""
