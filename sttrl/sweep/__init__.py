"""Sweeps: the runs of a grid, one after another, and their table."""
