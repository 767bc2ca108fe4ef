"""The calls that the API answers: Flask views, each with its description for the reference."""
