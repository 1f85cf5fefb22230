"""Start SkyRL's Tinker server with its JAX engine on the CPU, on loopback; 0.4.0 and 0.3.0.

Run by the Python of one of the environments that `environments.py` builds, never by the project's
own. SkyRL's own command line wants `uv`, torch and peft: it starts its engine through `uv run`,
imports torch for images only, and peft for one class that writes a file. Hence this launcher: it
puts two stub modules in the place of torch and peft, and starts the engine as itself.

    serve_skyrl.py --base-model DIR --port N --state DIR [--micro-batch N] [--sdk-compat]
    serve_skyrl.py --engine ...      (the engine process, started by the first)
"""

import argparse
import importlib.machinery
import importlib.util
import json
import os
import runpy
import signal
import sys
import threading
import types
import typing
from pathlib import Path

import transformers  # noqa: F401 - imported before the stub, so that it sees torch is absent
import typing_extensions

ADAPTERS = 32  # slots; one is the base model's. Tests give theirs back, failed ones do not
RANK = 8


class LoraConfig:
    """What SkyRL uses of `peft.LoraConfig`: it writes `adapter_config.json`."""

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def save_pretrained(self, folder: str) -> None:
        """Write the file that a reader of LoRA adapters looks for."""
        text = json.dumps({"peft_type": "LORA", **self._fields})
        (Path(folder) / "adapter_config.json").write_text(text)


def _stub(name: str, **members: object) -> None:
    if importlib.util.find_spec(name) is not None:
        return
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(members)
    sys.modules[name] = module


def _prepare() -> None:
    _stub("torch", Tensor=type("Tensor", (), {}))
    _stub("peft", LoraConfig=LoraConfig)
    # SkyRL 0.3.0 runs on Python 3.11, where pydantic refuses typing's own TypedDict
    typing.TypedDict = typing_extensions.TypedDict  # type: ignore[assignment]


def _engine() -> None:
    sys.argv = ["skyrl.tinker.engine", *sys.argv[2:]]
    runpy.run_module("skyrl.tinker.engine", run_name="__main__")


def _leave_with_parent() -> None:
    """End the group when standard input closes: whoever started us is gone, however it went."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)


def _api() -> None:
    import uvicorn  # noqa: PLC0415 - only after the stubs stand
    from skyrl.tinker import api, config  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    parser.add_argument("--base-model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--micro-batch", type=int, default=0, help="0: as many as are pending")
    parser.add_argument("--sdk-compat", action="store_true", help="answer SDK 0.38 too")
    options = parser.parse_args()
    if options.sdk_compat:
        import skyrl_compat  # noqa: PLC0415 - SkyRL 0.4.0 only

        skyrl_compat.install(api)
    state = options.state.resolve()  # orbax refuses a relative path
    state.mkdir(parents=True, exist_ok=True)

    def engine_command(_parent: list[str], engine: object) -> list[str]:
        return [sys.executable, __file__, "--engine", *config.config_to_argv(engine)]

    api._build_uv_run_cmd_engine = engine_command  # there is no public seam
    api.app.state.engine_config = config.EngineConfig(
        base_model=options.base_model,
        backend="jax",
        backend_config={
            "max_lora_adapters": ADAPTERS,
            "max_lora_rank": RANK,
            "train_micro_batch_size": options.micro_batch,
        },
        checkpoints_base=f"{state}/checkpoints",
        database_url=f"sqlite:///{state}/tinker.db",
    )
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    uvicorn.run(
        api.app, host="127.0.0.1", port=options.port, log_level="info", timeout_keep_alive=75
    )


if __name__ == "__main__":
    _prepare()
    if sys.argv[1:2] == ["--engine"]:
        _engine()
    else:
        _api()
