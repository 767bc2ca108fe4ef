"""Embeddings: what an embedding job embeds, and the vectors that it gets."""
