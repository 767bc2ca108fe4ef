"""`headrace bench`: runs the scripts of `benchmarks/`, keeps their figures in one file, and makes the page of it."""
