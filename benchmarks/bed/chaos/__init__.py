"""A system of two hosts that breaks by plan, its client, and the verdict on what was promised."""
