"""`headrace settings`: every setting, and the page that is made from the settings' descriptions."""
