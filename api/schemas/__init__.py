"""JSON in and out: what a request may say, what an answer looks like, and every 4xx message about a field.

Does no I/O and knows no HTTP.
"""
