"""The reference of the HTTP API as one plain page: no script, no style, nothing from another host."""

from __future__ import annotations

import html

import orjson

from .shapes import Json


def reference_html(document: Json) -> str:
    """The page of an OpenAPI document."""
    rows: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            rows.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            rows.append(f"<p>{html.escape(operation.get('description', ''))}</p>")
            parameters = operation.get("parameters", [])
            if parameters:
                rows.append(
                    "<table><thead><tr><th>parameter</th><th>in</th><th>schema</th></tr></thead><tbody>"
                )
                for parameter in parameters:
                    schema = orjson.dumps(parameter["schema"]).decode()
                    name, place = html.escape(parameter["name"]), html.escape(parameter["in"])
                    rows.append(
                        f"<tr><td><code>{name}</code></td><td>{place}</td><td><code>{html.escape(schema)}</code></td></tr>"
                    )
                rows.append("</tbody></table>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tierlight API</title>'
        '<meta name="viewport" content="width=device-width"></head><body><main><h1>tierlight API</h1>'
        '<p>The same as an <a href="/api/v1/openapi.json">OpenAPI document</a>.</p>'
        + "".join(rows)
        + "</main></body></html>"
    )
