"""What survives a kill: the journal, the run folder and its files. Runs, and all that is to be taken up again, use it alike."""
