"""The calls that the API answers: a plain function for each, with its operation's description. Knows no Flask."""
