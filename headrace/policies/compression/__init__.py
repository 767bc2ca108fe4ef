"""Compresses a conversation: which parts may change, what is cut away, and what is left. Pure."""

from headrace.policies.compression.conversation import apply, digest, open_turns
from headrace.policies.compression.repeats import plain
from headrace.policies.compression.requests import chosen
from headrace.policies.compression.surprise import surprising

__all__ = ["apply", "chosen", "digest", "open_turns", "plain", "surprising"]
