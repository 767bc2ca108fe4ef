"""Reads of jobs: what an app is shown of them, and what operators see."""
