"""What `batch.py` stands on: a client of batches, interactive traffic beside it, and the verdict in SQL."""
