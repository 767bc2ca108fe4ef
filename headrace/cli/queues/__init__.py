"""The queues in the terminal."""
