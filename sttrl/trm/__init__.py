"""The tiny recursive model: its data sets, its training, and its adaptation to tasks it has never seen (arXiv 2510.04871)."""
