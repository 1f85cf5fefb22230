"""Many samples at once with the official SDK, and one that is given up; tells as JSON what came.

A process, because the SDK keeps threads and connections for as long as its process lives.
"""

import json
import os
import sys

import tinker
from tinker import types

WAIT_S = 240


def told(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - its one way to tell


def prompt(number: int) -> types.ModelInput:
    return types.ModelInput.from_ints([number % 400, number // 400, 7])


def main(url: str, samples: int, given_up: int) -> None:
    service = tinker.ServiceClient(base_url=url)
    sampler = service.create_sampling_client(base_model="sandbox/tiny-1").result(WAIT_S)
    params = types.SamplingParams(max_tokens=3, temperature=0.0)
    futures = [sampler.sample(prompt(number), 2, params) for number in range(samples)]
    drawn = [future.result(WAIT_S) for future in futures]
    told(
        [
            [[list(map(int, s.tokens)), s.sequence_id] for s in response.sequences]
            for response in drawn
        ]
    )
    if given_up:
        future = sampler.sample(types.ModelInput.from_ints([given_up]), 1, params).future()
        sys.stdin.readline()
        future.cancel()
        sys.stdin.readline()


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
sys.stdout.flush()
os._exit(0)  # as sandbox/sdk_session.py does
