"""Answers that serve more than one job: identical jobs, and the same question in other words."""
