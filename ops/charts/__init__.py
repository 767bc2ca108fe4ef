"""Charts as SVG: pure, from rows to text."""
