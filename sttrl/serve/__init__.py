"""The endpoint: OpenAI's API, answered by a model that adapts to each request. `sttrl.library.session` does the work."""
