"""Run `sdk_flow.session` with the SDK that is installed; print as JSON what it saw.

    TINKER_BASE_URL=... TINKER_API_KEY=... sdk_program.py sync|async STEPS [PART ...]

Run by an environment that holds an SDK and nothing of ours. A process, because the SDK keeps
threads and connections for as long as its process lives.
"""

import asyncio
import dataclasses
import inspect
import json
import os
import sys
import warnings
from datetime import datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import tinker
from pydantic import BaseModel
from sdk_flow import Call, Flow, Plan, session
from tinker import types

WAIT_S = 120.0
MADE_UP = {"sequence_id"}  # by the upstream, anew each time


def run_sync(flow: Flow) -> Any:
    """Make the calls as a program without an event loop does."""
    results: list[Any] | None = None
    while True:
        try:
            calls = next(flow) if results is None else flow.send(results)
        except StopIteration as end:
            return end.value
        started = [_start(each) for each in calls]
        results = [_finish(each, begun) for each, begun in zip(calls, started, strict=True)]


def _start(each: Call) -> Any:
    return getattr(each.on, each.method)(*each.arguments, **each.options)


def _finish(each: Call, begun: Any) -> Any:
    if not hasattr(begun, "result"):
        return begun
    try:
        return begun.result(WAIT_S)
    except tinker.TinkerError as error:
        return _refused(each, error)


async def run_async(flow: Flow) -> Any:
    """Make the calls as a program with an event loop does."""
    results: list[Any] | None = None
    while True:
        try:
            calls = next(flow) if results is None else flow.send(results)
        except StopIteration as end:
            return end.value
        started = [await _start_async(each) for each in calls]
        results = [
            await _finish_async(each, begun) for each, begun in zip(calls, started, strict=True)
        ]


async def _start_async(each: Call) -> Any:
    """Prefer the method's async twin, unless this SDK has one for old programs only."""
    twin = getattr(each.on, each.method + "_async", None)
    if twin is None or hasattr(twin, "__deprecated__"):
        return _start(each)
    return await twin(*each.arguments, **each.options)


async def _finish_async(each: Call, begun: Any) -> Any:
    try:
        async with asyncio.timeout(WAIT_S):
            return await begun if inspect.isawaitable(begun) else begun
    except tinker.TinkerError as error:
        return _refused(each, error)


def _refused(each: Call, error: Exception) -> str:
    if not each.may_be_refused:
        raise error
    return f"{type(error).__name__}: {error}"


def plain(value: Any) -> Any:
    """What JSON can hold of it."""
    if isinstance(value, types.TensorData):
        value = {"dtype": value.dtype, "shape": value.shape, "data": value.data}
    elif isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif dataclasses.is_dataclass(value):  # what a newer SDK has in the place of some models
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items() if key not in MADE_UP}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def main(style: str, plan: Plan) -> None:
    """Do all of it and print what came."""
    service = tinker.ServiceClient()
    flow = session(service, plan)
    seen = run_sync(flow) if style == "sync" else asyncio.run(run_async(flow))
    print(json.dumps({"sdk": version("tinker"), **plain(seen)}, default=_as_text))
    sys.stdout.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)  # a newer SDK on what it will drop some day
    main(sys.argv[1], Plan(int(sys.argv[2]), tuple(sys.argv[3:])))
    os._exit(0)  # as sandbox/sdk_session.py does
