"""The tiny recursive model: data sets, model, training, adaptation to new puzzles, evaluation."""
