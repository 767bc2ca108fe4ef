"""Takes the check of texts away, for a counter-proof: with this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. NUL and halves of characters go on to Postgres, which cannot hold them.
"""

from api.schemas import body

body._check_text = lambda text, path: None
