"""Describe the interface for programs (OpenAPI 3.1)."""

from typing import Any

from kedge_runtime import __version__

_CLASS = {
    "type": "object",
    "required": ["index", "id", "name", "probability"],
    "properties": {
        "index": {"type": "integer", "minimum": -1},
        "id": {"type": "string"},
        "name": {"type": "string"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
_RESULT = {
    "type": "object",
    "required": ["schema", "command", "label", "unknown", "margin", "entropy", "best"],
    "properties": {
        "schema": {"const": 1},
        "command": {"const": "serve"},
        "label": {"type": ["string", "null"]},
        "unknown": {"type": "boolean"},
        "margin": {"type": "number"},
        "entropy": {"type": "number", "minimum": 0, "maximum": 1},
        "best": _CLASS,
        "predictions": {"type": "array", "items": _CLASS},
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}

# Status -> what it means, of POST /v1/classify.
ERRORS = {
    400: "A parameter is wrong, or the body is empty or cut short",
    401: "The token is missing or wrong",
    403: "Another site's page asks",
    408: "The body or the model took too long",
    411: "The body has no Content-Length",
    413: "The body is too large",
    415: "The body is a form; send the image's bytes",
    422: "The body is no image that can be read",
    429: "Too many requests a second",
    503: "Too many images at once, or the engine failed",
}


def _json(schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _get(summary: str, kind: str) -> dict[str, Any]:
    answer = {"description": summary, "content": {kind: {}}}
    return {"get": {"summary": summary, "responses": {"200": answer}}}


def description() -> dict[str, Any]:
    """Return the description of all paths that programs may use."""
    top = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}
    image = {"schema": {"type": "string", "format": "binary"}}
    kinds = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
    errors = {str(code): _json(_ERROR, text) for code, text in ERRORS.items()}
    classify = {
        "summary": "Classify one image",
        "parameters": [{"name": "top", "in": "query", "required": False, "schema": top}],
        "requestBody": {"required": True, "content": dict.fromkeys(kinds, image)},
        "responses": {"200": _json(_RESULT, "The result"), **errors},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "kedge", "version": __version__},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
        "paths": {
            "/v1/classify": {"post": classify},
            "/v1/state": _get("The stream's newest result and its history", "application/json"),
            "/live.jpg": _get("The newest frame", "image/jpeg"),
            "/live.mjpg": _get("The frames as they come", "multipart/x-mixed-replace"),
            "/healthz": _get("Whether the process and its stream run", "application/json"),
            "/metrics": _get("Figures for Prometheus", "text/plain"),
            "/openapi.json": _get("This description", "application/json"),
        },
    }
