"""Advantages and losses: pure tensors in, tensors out; verl's own functions wherever it has one."""
