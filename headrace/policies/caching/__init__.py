"""The cache: which jobs may be given the answer of another job, and for how long. Pure."""
