"""The kind "grid task" (ARC): grids, views, codecs, held-out demonstrations, search, selection, submission and scores."""
