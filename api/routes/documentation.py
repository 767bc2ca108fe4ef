"""`/openapi.json` and `/docs`: the API, browsable without any network."""

from flask import Blueprint, Response, jsonify, redirect
from flask_swagger_ui import get_swaggerui_blueprint  # type: ignore[import-untyped]
from werkzeug.wrappers import Response as Redirect

from api.reference.openapi import document

blueprint = Blueprint("documentation", __name__)

#: Swagger UI from the package's own files. Its validator badge would call a public service.
pages: Blueprint = get_swaggerui_blueprint(
    "/docs",
    "/openapi.json",
    config={
        "app_name": "Headrace API",
        "layout": "BaseLayout",
        "validatorUrl": None,
        "persistAuthorization": True,
        "defaultModelsExpandDepth": 0,
        "docExpansion": "list",
    },
)


@blueprint.get("/")
def index() -> Redirect:
    """Redirect a browser to the documentation."""
    return redirect("/docs/")


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The API as an OpenAPI document."""
    return jsonify(document())
