"""Sweeps: many runs with different settings, one after another, and one table of all."""
