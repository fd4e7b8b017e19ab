"""The HTTP service described by the OpenAPI standard, and the same as a page to read."""

from dataclasses import dataclass
from html import escape
from typing import Any

VERSION = "1"
"""Of this interface."""

JSON = "application/json"
WORDS = {"type": "string"}


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    n_bytes: int
    n_images: int
    n_pixels: int
    """Of all its images together."""


def describe(limits: Limits, *, needs_token: bool, takes_paths: bool) -> dict[str, Any]:
    """Return the service as an OpenAPI 3.1 document."""
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Custom Aesthetic Training",
            "version": VERSION,
            "summary": "Scores of pictures by a model of one person's taste.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/score": {"post": _score(limits, takes_paths)},
            "/card": {"get": _card()},
        },
        "components": {"schemas": {"Result": _result(), "Problem": _problem()}},
    }
    if needs_token:
        description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        description["security"] = [{"token": []}]
    return description


def _score(limits: Limits, takes_paths: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"images": {"type": "array", "items": {}, "maxItems": limits.n_images}},
            },
            "encoding": {"images": {"contentType": "image/*, application/octet-stream"}},
        },
        "image/*": {},
        "application/octet-stream": {},
    }
    if takes_paths:
        paths = {"type": "array", "items": WORDS, "minItems": 1, "maxItems": limits.n_images}
        content[JSON] = {
            "schema": {"type": "object", "required": ["paths"], "properties": {"paths": paths}},
            "example": {"paths": ["one.jpg", "holiday/two.jpg"]},
        }
    named = "; JSON names paths below the folder that is served" if takes_paths else ""
    return {
        "operationId": "score",
        "summary": "Score one or more pictures.",
        "description": (
            f"Send files in a form, under any field name, or one file as the body{named}. At most {limits.n_images} "
            f"pictures, {limits.n_bytes / 2**20:.0f} MiB and {limits.n_pixels / 1e6:.0f} million pixels a request. "
            "The results have the order of the request. A picture that cannot be used has an error of its own."
        ),
        "parameters": [
            {
                "name": "name",
                "in": "query",
                "description": "The name of a file that is sent as the body; RAW files are known by its ending.",
                "schema": WORDS,
            }
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "A result for each picture.", "content": {JSON: {"schema": _results()}}},
            "400": _refusal("The request cannot be understood, or holds no picture."),
            "403": _refusal("Another page or host asks, or the token is missing."),
            "408": _refusal("The client sent nothing for too long."),
            "413": _refusal("Too many bytes, pictures or pixels."),
            "415": _refusal("The body is of another type."),
            "503": _refusal("The model cannot be run, or too many clients are connected."),
        },
    }


def _card() -> dict[str, Any]:
    texts = {"type": "object", "additionalProperties": WORDS}
    return {
        "operationId": "card",
        "summary": "What the model file says of itself.",
        "responses": {
            "200": {"description": "Names and values.", "content": {JSON: {"schema": texts}}},
            "403": _refusal("Another page or host asks, or the token is missing."),
        },
    }


def _results() -> dict[str, Any]:
    items = {"$ref": "#/components/schemas/Result"}
    return {"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "items": items}}}


def _result() -> dict[str, Any]:
    number = {"type": ["number", "null"]}
    properties = {
        "name": {**WORDS, "description": "The name or path that was sent."},
        "score": {
            **number,
            "description": "In the units of the scores that the model was trained on; higher is better.",
        },
        "sigma": {**number, "description": "The standard deviation that the model expects; null if it gives none."},
        "domain_distance": {
            **number,
            "description": "Above 1: unlike everything that the model was trained on. Null if the model does not say.",
        },
        "error": {"type": ["string", "null"], "description": "Why there is no score; null if there is one."},
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _problem() -> dict[str, Any]:
    return {"type": "object", "required": ["error"], "properties": {"error": WORDS}}


def _refusal(words: str) -> dict[str, Any]:
    return {"description": words, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def as_html(description: dict[str, Any]) -> str:
    """Return the description as a page."""
    info = description["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/style.css">',
        f"<title>{escape(info['title'])}: HTTP</title></head><body><h1>{escape(info['title'])}: HTTP</h1>",
        f"<p>Version {escape(info['version'])}. {escape(info['summary'])} For programs: ",
        '<a href="/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>',
    ]
    if "security" in description:
        parts.append("<p>Each request needs the header <code>Authorization: Bearer TOKEN</code>.</p>")
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation_html(f"{method.upper()} {path}", operation))
    parts.append("<section><h2>A result</h2>")
    parts.append(_table(description["components"]["schemas"]["Result"]["properties"], "description"))
    return "".join([*parts, "</section></body></html>\n"])


def _operation_html(title: str, operation: dict[str, Any]) -> str:
    parts = [f"<section><h2><code>{escape(title)}</code></h2><p>{escape(operation['summary'])} "]
    parts.append(f"{escape(operation.get('description', ''))}</p>")
    if "parameters" in operation:
        rows = {parameter["name"]: parameter for parameter in operation["parameters"]}
        parts.append(f"<h3>Query</h3>{_table(rows, 'description')}")
    if "requestBody" in operation:
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in operation["requestBody"]["content"])
        parts.append(f"<h3>Body</h3><p>{kinds}</p>")
    parts.append(f"<h3>Answers</h3>{_table(operation['responses'], 'description')}</section>")
    return "".join(parts)


def _table(rows: dict[str, dict[str, Any]], column: str) -> str:
    cells = (
        f"<tr><th><code>{escape(name)}</code></th><td>{escape(row[column])}</td></tr>" for name, row in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"
