"""What a run found: labels join the journal here, and every number, table and page of a run is made of the two. No engine, no method."""

from __future__ import annotations
