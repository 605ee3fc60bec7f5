"""The files from which a killed run is resumed: the journal and the rest of the run folder."""
