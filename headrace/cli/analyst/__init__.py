"""The command `headrace analyst`: the role of analysts, and the dictionary of what it reads."""
