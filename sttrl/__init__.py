"""Language models that adapt themselves, at test time and without labels, to the questions they are asked."""

__version__ = "0.1.0"
