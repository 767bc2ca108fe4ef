"""A random secret that survives restarts, in a file that only its owner can read. Knows nothing of its use."""

import os
import secrets
from pathlib import Path


def persistent_secret(path: Path) -> str:
    """Read the secret in this file. Without one, make it, with mode 0600."""
    try:
        if kept := path.read_text().strip():
            return kept
    except FileNotFoundError:
        pass
    value = secrets.token_urlsafe(32)
    write_private(path, value)
    return value


def write_private(path: Path, text: str) -> None:
    """Replace a whole file, with mode 0600 from its first byte on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
