"""The API's handlers behind other servers: granian's RSGI and ASGI, whose waits and streams hold no thread."""
