"""A run in the formats of other programs: tables, logs of inspect_ai, and the hub."""
