"""Pairs of requests, of which one answer may or may not serve both."""
