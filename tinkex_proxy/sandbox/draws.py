"""The answer to a sampling request, drawn and then written in both encodings.

A token below 256 is that byte, so a stop string is the sequence of its UTF-8 bytes: the sandbox has
no other tokenizer.
"""

from collections.abc import Sequence

import numpy as np

from tinkex_proxy.sandbox import sampling
from tinkex_proxy.sandbox.forms import Asample, Params
from tinkex_proxy.sandbox.futures import Sampled
from tinkex_proxy.sandbox.model import VOCABULARY, Adapter
from tinkex_proxy.wire import tinker_pb2 as pb

__all__ = ["drawn"]

NO_LOGPROB = -99999.0  # what stands beside token 0 in a top-k cell that is not used

Rows = list[list[tuple[int, float]] | None]


def drawn(adapter: Adapter, form: Asample, prompt: Sequence[int], seed: Sequence[int]) -> Sampled:
    """Draw.

    Args:
        adapter: what to sample from.
        form: the request.
        prompt: its tokens.
        seed: for a request that has none of its own.
    """
    wanted = form.sampling_params
    params = _params(wanted)
    start = seed if wanted.seed is None else [wanted.seed]
    results = [
        sampling.draw(adapter, prompt, params, np.random.default_rng([*start, number]))
        for number in range(form.num_samples)
    ]
    scored = sampling.prompt_logprobs(adapter, prompt) if form.prompt_logprobs else None
    topk = min(form.topk_prompt_logprobs, VOCABULARY)
    likeliest = sampling.prompt_topk(adapter, prompt, topk) if topk > 0 else None
    answer: dict[str, object] = {
        "sequences": [
            {
                "tokens": one.tokens,
                "logprobs": [float(np.float32(p)) for p in one.logprobs],
                "stop_reason": "stop" if one.stopped else "length",
            }
            for one in results
        ],
        "prompt_logprobs": scored,
        "topk_prompt_logprobs": likeliest,
        "type": "sample",
    }
    return Sampled(answer, _protobuf(results, scored, likeliest, topk))


def _params(wanted: Params) -> sampling.SamplingParams:
    most = sampling.DEFAULT_MAX_TOKENS if wanted.max_tokens is None else wanted.max_tokens
    texts = [wanted.stop] if isinstance(wanted.stop, str) else wanted.stop or []
    stops = [(s,) if isinstance(s, int) else tuple(s.encode()) for s in texts]
    return sampling.SamplingParams(
        max_tokens=most,
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        stop=tuple(stop for stop in stops if stop),
    )


def _protobuf(
    results: list[sampling.Drawn], scored: list[float | None] | None, likeliest: Rows | None, k: int
) -> bytes:
    message = pb.SampleResponse()
    for one in results:
        message.sequences.add(
            stop_reason=pb.STOP_REASON_STOP if one.stopped else pb.STOP_REASON_LENGTH,
            tokens=np.asarray(one.tokens, dtype="<i4").tobytes(),
            logprobs=np.asarray(one.logprobs, dtype="<f4").tobytes(),
        )
    if scored is not None:
        numbers = [np.nan if p is None else p for p in scored]
        message.prompt_logprobs = np.asarray(numbers, dtype="<f4").tobytes()
    if likeliest is not None:
        cells = [cell for row in likeliest for cell in row or [(0, NO_LOGPROB)] * k]
        top = message.topk_prompt_logprobs
        top.token_ids = np.asarray([token for token, _ in cells], dtype="<i4").tobytes()
        top.logprobs = np.asarray([logprob for _, logprob in cells], dtype="<f4").tobytes()
        top.k, top.length = k, len(likeliest)
    return message.SerializeToString()
