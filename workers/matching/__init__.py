"""The look-ups of the semantic cache, in the workers of an embedding model, and what waits for them elsewhere."""
