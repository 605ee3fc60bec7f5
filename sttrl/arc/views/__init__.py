"""Views of a puzzle: invertible rewrites and their keys, the draws that build lists of them, and training sets made of them."""
