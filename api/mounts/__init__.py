"""How HTTP meets a handler: on the event loop where a call has a body or may wait, by Flask where it does not."""
