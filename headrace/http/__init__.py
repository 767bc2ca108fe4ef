"""What the HTTP processes `web` and `ops` share. Knows no framework."""
