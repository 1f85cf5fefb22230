"""The OpenAPI document: FastAPI's for the operators' routes, ours for the plain calls.

The plain calls are decoded by msgspec, so their schemas come from the same structs that decode them
and cannot drift from what is accepted.
"""

from typing import Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tinkex_proxy.api.guard import ACTION_HEADER, LOOKING
from tinkex_proxy.api.problems import PROBLEM_JSON, STATUS
from tinkex_proxy.wire.plain import openapi_schemas

__all__ = ["openapi_document"]

Json = dict[str, object]

# operation id, method, path, request schema, answer schema, summary
_CALLS: Final = (
    ("capabilities", "get", "/v1/capabilities", None, "Capabilities", "Models the upstream offers"),
    ("create_model", "post", "/v1/models", "CreateModel", "ModelFacts", "Create a model to train"),
    ("list_models", "get", "/v1/models", None, "Models", "Models created under this key"),
    ("show_model", "get", "/v1/models/{model_id}", None, "ModelFacts", "One model and its lane"),
    ("delete_model", "delete", "/v1/models/{model_id}", None, "Deleted", "Unload a model"),
    (
        "forward_backward",
        "post",
        "/v1/forward_backward",
        "Training",
        "TrainingAnswer",
        "Loss and gradient of some datums; coalesced with its neighbours",
    ),
    ("forward", "post", "/v1/forward", "Training", "TrainingAnswer", "Loss without gradient"),
    ("optim_step", "post", "/v1/optim_step", "OptimStep", "OptimStepAnswer", "Apply the gradients"),
    (
        "forward_backward_batch",
        "post",
        "/v1/forward_backward_batch",
        "TrainingBatch",
        "Results",
        "Several forward_backward calls; each succeeds or fails by itself",
    ),
    (
        "optim_step_batch",
        "post",
        "/v1/optim_step_batch",
        "OptimStepBatch",
        "Results",
        "Several optim_step calls, in order per model",
    ),
    ("sample", "post", "/v1/sample", "Sample", "SampleAnswer", "Continue a prompt"),
    ("save_weights", "post", "/v1/save_weights", "SaveWeights", "Saved", "Save a checkpoint"),
    (
        "save_weights_for_sampler",
        "post",
        "/v1/save_weights_for_sampler",
        "SaveWeights",
        "Saved",
        "Save weights to sample from",
    ),
    ("load_weights", "post", "/v1/load_weights", "LoadWeights", "Loaded", "Load a checkpoint"),
    ("future", "get", "/v1/futures/{future_id}", None, "Pending", "The answer of an earlier call"),
)

_HEADERS: Final = (
    ("X-API-Key", "string", "Your own API key, if not the configured one."),
    ("Idempotency-Key", "string", "Same key and body: the first answer again. Other body: 409."),
    ("X-Request-Timeout", "number", "Seconds you are ready to wait."),
    ("X-Tinkex-Coalesce", "string", "`off`: a request of its own."),
    ("traceparent", "string", "The caller's place in a trace, as W3C Trace Context has it."),
    ("Prefer", "string", "`respond-async`: 202 and a Location to fetch the answer from."),
)


def openapi_document(app: FastAPI) -> Json:
    """The whole document; built once."""
    if app.openapi_schema:
        return app.openapi_schema
    document: Json = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    paths = document.setdefault("paths", {})
    components = document.setdefault("components", {})
    if isinstance(paths, dict) and isinstance(components, dict):
        for operations in paths.values():
            _name_action_header(operations)
        schemas = components.setdefault("schemas", {})
        schemas.update(openapi_schemas())
        schemas["Problem"] = _problem_schema()
        for name, method, path, body, answer, summary in _CALLS:
            paths.setdefault(path, {})[method] = _operation(
                name, path, body, answer, summary=summary
            )
    app.openapi_schema = document
    return document


def _name_action_header(operations: dict[str, Json]) -> None:
    """Say what a browser sends with what changes something: the page at `/docs` is in one."""
    for method, operation in operations.items():
        parameters = operation.setdefault("parameters", [])
        if method.upper() not in LOOKING and isinstance(parameters, list):
            parameters.append(
                {
                    "name": ACTION_HEADER,
                    "in": "header",
                    "schema": {"type": "string", "default": "1"},
                    "description": "Browsers have to send it; programs need not.",
                }
            )


def _operation(name: str, path: str, body: str | None, answer: str, *, summary: str) -> Json:
    parameters: list[Json] = [
        {"name": header, "in": "header", "schema": {"type": kind}, "description": text}
        for header, kind, text in _HEADERS
    ]
    if "{" in path:
        parameter = path.partition("{")[2].rstrip("}")
        schema = {"type": "string"}
        parameters.insert(0, {"name": parameter, "in": "path", "required": True, "schema": schema})
    if name == "future":
        wait = {"name": "wait", "in": "query", "schema": {"type": "number", "default": 0}}
        parameters.insert(1, {**wait, "description": "Seconds to hold the request."})
    responses: Json = {
        "200": {"description": "The answer", "content": _content("application/json", answer)},
        "default": {"description": "A problem", "content": _content(PROBLEM_JSON, "Problem")},
    }
    if body is not None:
        responses["202"] = {
            "description": "Accepted (Prefer: respond-async)",
            "content": _content("application/json", "Pending"),
        }
    operation: Json = {
        "operationId": name,
        "tags": ["plain calls"],
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": _content("application/json", body),
        }
    return operation


def _content(media_type: str, schema: str) -> Json:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problem_schema() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "RFC 9457 problem details",
        "required": ["type", "title", "status", "detail", "instance", "code", "retryable"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "instance": text,
            "code": {"type": "string", "enum": sorted(STATUS)},
            "retryable": {"type": "boolean"},
            "request_id": text,
            "pointer": text,
            "category": text,
            "problems": {"type": "array", "items": text},
        },
    }
