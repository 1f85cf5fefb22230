"""The document at /openapi.json is whole, and says what the code does."""

from collections.abc import Iterator

import msgspec
import pytest

from tinkex_proxy.wire import plain

DECODERS = {
    "CreateModel": plain.decode_create_model,
    "Training": plain.decode_training,
    "TrainingBatch": plain.decode_training_batch,
    "OptimStep": plain.decode_optim_step,
    "OptimStepBatch": plain.decode_optim_step_batch,
    "Sample": plain.decode_sample,
    "SaveWeights": plain.decode_save_weights,
    "LoadWeights": plain.decode_load_weights,
}


@pytest.fixture
async def document(proxy):
    return (await proxy.client.get("/openapi.json")).json()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_every_reference_leads_somewhere(document) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


async def test_every_route_is_described_and_nothing_else(document, routes) -> None:
    """Both ways, methods included."""
    pages = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/static-offline-docs", "/"}
    hidden = {*pages, "/ui/{path:path}", "/api/v1/{path:path}"}  # the upstream describes its own
    served = {(path, method.lower()) for path, method in routes if path not in hidden}
    described = {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }
    assert described == served


@pytest.mark.parametrize("name", DECODERS)
async def test_every_example_of_a_body_is_accepted(document, name: str) -> None:
    schema = document["components"]["schemas"][name]
    assert schema.get("examples"), name
    for example in schema["examples"]:
        decoded = DECODERS[name](msgspec.json.encode(example))
        items = decoded if isinstance(decoded, list) else [decoded]
        assert not any(isinstance(item, Exception) for item in items)


async def test_every_call_that_has_a_body_says_which(document) -> None:
    posts = {
        p: m["post"] for p, m in document["paths"].items() if p.startswith("/v1") and "post" in m
    }
    assert len(posts) == 10
    for path, post in posts.items():
        (reference,) = set(references(post["requestBody"]))
        assert reference.rpartition("/")[2] in DECODERS, path


async def test_problems_list_every_code(document) -> None:
    from tinkex_proxy.api.problems import STATUS  # noqa: PLC0415

    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == sorted(STATUS)


async def test_the_document_is_built_once(proxy) -> None:
    app = proxy.proxy.app._app._app
    assert app.openapi() is app.openapi()


def test_what_changes_something_names_the_header_that_browsers_send(document) -> None:
    """The page at /docs is in a browser; programs need not send it."""

    def named(path: str, method: str) -> bool:
        parameters = document["paths"][path][method].get("parameters", [])
        return "x-tinkex-action" in {parameter["name"] for parameter in parameters}

    assert named("/breakers/{breaker_id}/reset", "post")
    assert named("/drain", "post")
    assert not named("/drain", "get")
    assert not named("/v1/optim_step", "post")
