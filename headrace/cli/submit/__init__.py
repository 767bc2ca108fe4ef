"""`headrace submit`: one prompt, or a file of them."""
