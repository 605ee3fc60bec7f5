"""The page of one or several runs: what it shows as JSON values, as one file that loads nothing, or from a server on this machine."""
