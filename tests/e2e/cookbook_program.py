"""Run tinker-cookbook's supervised recipe, `recipes/sl_basic.py`, for a few steps; print its log.

    TINKER_BASE_URL=... TINKER_API_KEY=... cookbook_program.py TOKENIZER FOLDER

The recipe as it is, with what it invites its users to replace: the model, which is the upstream's
only one, and the dataset, which is a file of conversations that this program writes. What it would
fetch stays out: prices, which only its log shows. The loop has checkpoints, and a step submitted
ahead of the one that is waited for. There is no held-out part: its evaluation wants a value for the
first token of a prompt from `compute_logprobs`, and SkyRL gives none, proxy or not.
"""

import json
import os
import sys
from pathlib import Path

import tinker
from tinker_cookbook.recipes import sl_basic
from tinker_cookbook.supervised import train
from tinker_cookbook.supervised.data import FromConversationFileBuilder
from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig

RECIPE_FOR = "Qwen/Qwen3-8B"  # a model that the recipe knows; the tiny one is of its family
RENDERER = "qwen3"
CONVERSATIONS = 8
BATCH = 4
EPOCHS = 3


def conversations(file: Path) -> None:
    """Write a dataset as the cookbook wants it."""
    with file.open("w") as lines:
        for number in range(CONVERSATIONS):
            question = {"role": "user", "content": f"What comes after {number}?"}
            answer = {"role": "assistant", "content": f"{number + 1} comes after {number}."}
            print(json.dumps({"messages": [question, answer]}), file=lines)


def main(tokenizer: str, folder: Path) -> None:
    """Configure as a user of the recipe does, run it, read its log."""
    conversations(folder / "conversations.jsonl")
    common = ChatDatasetBuilderCommonConfig(
        model_name_for_tokenizer=tokenizer,
        renderer_name=RENDERER,
        max_length=128,
        batch_size=BATCH,
    )
    offered = tinker.RestClient().get_server_capabilities().result().supported_models
    train.fetch_model_pricing = lambda _: None
    blueprint = sl_basic.build_config_blueprint(RECIPE_FOR).apply(
        {
            "model_name": offered[0].model_name,
            "renderer_name": RENDERER,
            "dataset_builder": FromConversationFileBuilder(
                common_config=common,
                file_path=str(folder / "conversations.jsonl"),
            ),
            "log_path": str(folder / "log"),
            "learning_rate": 1e-2,
            "lora_rank": 8,
            "num_epochs": EPOCHS,
            "save_every": 2,
        }
    )
    sl_basic.main(blueprint.make())
    rows = [json.loads(line) for line in (folder / "log/metrics.jsonl").read_text().splitlines()]
    saved = (folder / "log/checkpoints.jsonl").read_text().splitlines()
    print(json.dumps({"metrics": rows, "saved": [json.loads(line) for line in saved]}))
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
    os._exit(0)  # as sandbox/sdk_session.py does
