"""The engine: verl trains, vLLM samples, Ray holds the processes. Methods see `sttrl.engine.base` only."""
