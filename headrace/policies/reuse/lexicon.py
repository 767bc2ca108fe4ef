"""How the word lists of `english` and `german` are written. Pure."""


def words_of(text: str) -> frozenset[str]:
    """The words of a list that is written as text."""
    return frozenset(text.split())


def pairs_of(text: str) -> dict[str, str]:
    """The pairs of a list of `form=base`."""
    return dict(pair.split("=", 1) for pair in text.split())


def names_of(text: str) -> dict[str, str]:
    """Each word of a list of `name = word word`, and its name."""
    lines = (line.partition("=") for part in text.splitlines() for line in part.split(";"))
    return {word: name.strip() for name, _, words in lines for word in words.split()}
