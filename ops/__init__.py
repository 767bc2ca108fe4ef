"""The process `ops`: the operators' pages at `/ops`, behind a login of their own."""
