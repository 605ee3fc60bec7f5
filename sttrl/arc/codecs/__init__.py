"""The ways to write a puzzle as text, a file each."""
