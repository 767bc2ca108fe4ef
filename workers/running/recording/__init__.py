"""Records attempts in Postgres and tells Redis of them: claims made ahead, ends written behind, streams, notices."""
