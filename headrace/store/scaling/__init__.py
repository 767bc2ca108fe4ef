"""What a scaling decision goes by, read from Postgres: a pool's history, its hosts, and what a host does and costs."""
