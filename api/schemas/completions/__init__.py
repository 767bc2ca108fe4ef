"""`/v1/completions`: its request and its answer."""
