"""How HTTP meets a handler: Flask for every route, and the fast path for the hot ones. Both are WSGI."""
