"""The learner: verl's worker, engine and optimiser, one fork after another."""
