"""The methods that a path answers, as the header `Allow` lists them."""

from flask import current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

#: The blueprint of calls that are only refused, with what to do instead.
REFUSING = "unsupported"


def allowed_methods() -> list[str]:
    """The methods that this request's path answers, sorted."""
    adapter = current_app.create_url_adapter(request)
    if adapter is None:
        return []
    return sorted(method for method in adapter.allowed_methods() if not _is_refused(adapter, method))


def _is_refused(adapter: MapAdapter, method: str) -> bool:
    try:
        endpoint, _ = adapter.match(method=method)
    except HTTPException:
        return False
    return endpoint.startswith(f"{REFUSING}.") and method != "OPTIONS"
