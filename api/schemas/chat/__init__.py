"""`/v1/chat/completions`: its request and its answer."""
