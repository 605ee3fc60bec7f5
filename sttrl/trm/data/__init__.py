"""Data sets of puzzles: how they are built, kept in files, and read for training and evaluation."""
