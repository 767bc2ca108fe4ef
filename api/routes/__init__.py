"""HTTP in and out, one module per noun. No decisions here: use cases and the store make them."""
