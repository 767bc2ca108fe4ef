"""What a web process keeps in memory for a few seconds, so that it need not ask for each request."""
