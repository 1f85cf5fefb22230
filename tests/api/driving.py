"""How the tests of the plain calls drive a proxy."""

import asyncio


def datum(n: int) -> dict[str, list[int]]:
    tokens = [(n * 7 + j * 3) % 200 + 2 for j in range(9)]
    return {"tokens": tokens[:-1], "targets": tokens[1:]}


async def train(proxy, model_id: str, data: list[object], **headers: str):
    body = {"model_id": model_id, "data": data}
    return await proxy.post("/v1/forward_backward", body, **headers)


async def step(proxy, model_id: str, rate: float = 0.05):
    body = {"model_id": model_id, "adam_params": {"learning_rate": rate}}
    return await proxy.post("/v1/optim_step", body)


def stalled(proxy, model_id: str, key: str | None = None) -> asyncio.Event:
    """Keep the submits of one model of a key on the wire until the event is set."""
    submitter = proxy.proxy.services.accounts.of(key).tools.submitter
    original, release = submitter.submit, asyncio.Event()

    async def submit(ask):
        if model_id.encode() in ask.body:
            await release.wait()
        return await original(ask)

    submitter.submit = submit
    return release


def paths_noted(monkeypatch, way: type, name: str) -> list[str]:
    """The paths of the requests that a method of an application is given from now on."""
    paths: list[str] = []
    answer = getattr(way, name)

    async def noted(self, scope, *rest) -> None:
        paths.append(scope["path"])
        await answer(self, scope, *rest)

    monkeypatch.setattr(way, name, noted)
    return paths
