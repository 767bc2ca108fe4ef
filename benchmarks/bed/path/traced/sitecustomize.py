"""Lets the product's modules note their calls: with this folder on PYTHONPATH, and nowhere else.

Python runs this at its start, before it imports the product.
"""

from importlib.machinery import SourceFileLoader

from benchmarks.bed.path import tracer

SourceFileLoader.get_code = tracer.get_code  # type: ignore[method-assign]
