"""JSON in and out: what a request may say, what an answer looks like, and every 4xx message about a field.

Knows no HTTP and no I/O.
"""
