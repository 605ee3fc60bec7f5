"""A run: the asyncio runner, its journal, seeds, budgets and failures."""
