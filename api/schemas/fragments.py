"""Pieces of an answer that are JSON already, and are sent as they are stored instead of being read and written anew."""

import secrets


class Fragments:
    """The pieces of one answer, or of one stream: each is marked where it belongs, and filled in at the end."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """What stands for this JSON until then: a text that no caller can know."""
        mark = secrets.token_hex(16)
        self._texts[mark] = text
        return mark

    def filled(self, written: str) -> str:
        """What was written, with the pieces in it."""
        for mark, text in self._texts.items():
            written = written.replace(f'"{mark}"', text)
        return written
