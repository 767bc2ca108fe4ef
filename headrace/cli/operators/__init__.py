"""The accounts of the people who log in to the pages at /ops."""
