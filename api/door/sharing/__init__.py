"""Answers that a job shares with identical jobs: stored ones, and those under way."""
