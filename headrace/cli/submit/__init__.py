"""`headrace submit`: one prompt, a stream, or a file of prompts."""
