"""The pages at `/ops`, for operators: a Flask app of its own in the web process, behind a login of its own.

It is a separate app, so that its sessions, cookies and error pages cost the API nothing.
"""
