"""The sampler: vLLM, seeded sampling, and the weights of a fork merged into it."""
