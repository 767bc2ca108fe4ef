"""Calls that are made up from the OpenAPI document."""
