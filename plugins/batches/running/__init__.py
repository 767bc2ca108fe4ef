"""Batches: reads their files, submits their lines as room appears, and writes the files of their results.

A process of its own runs this, so that no file of 50,000 lines slows the API. It submits each line with the parts of
the API that submit a single request, so that the same rules, caches and prices hold for both.
"""
