"""Answers frequent requests before Flask sees them, where Flask would cost more than all else about them.

WSGI middlewares around the app. What they do not answer themselves, each error included, is left to the routes. Where
pages of other origins may call, they are not installed: the headers for those are Flask's.
"""
