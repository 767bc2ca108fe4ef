"""The semantic cache in Postgres: questions, the entries that match them, jobs that end so, and what is learned."""
