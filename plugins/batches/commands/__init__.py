"""`headrace batch`: the lines of a file as one batch, which needs no command that stays open."""
