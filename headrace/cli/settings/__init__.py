"""`headrace settings`: every setting, and the page that is made from their descriptions."""
