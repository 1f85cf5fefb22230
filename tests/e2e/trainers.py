"""Programs that train over plain HTTP, as users write them: threads that ask again when told to."""

import contextlib
import threading
from collections.abc import Iterator

import httpx

TEXTS = (
    "Four calls that land together are one request.",
    "Gradients add up until the step that applies them.",
    "A model is a lane, and a lane has an order.",
    "Closed means that traffic flows.",
)
MOST_WAITED_S = 5.0


def datum_of(text: str) -> dict[str, list[int]]:
    tokens = list(text.encode())
    return {"tokens": tokens[:-1], "targets": tokens[1:]}


class Trainer:
    """One model, trained until it is stopped; each step is of two calls that come together."""

    def __init__(self, url: str, seed: int, *, pause_s: float) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=120)
        self._seed = seed
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.steps = 0
        self.refused = 0
        self._threads = [threading.Thread(target=self._run, daemon=True)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
        self._client.close()

    def _run(self) -> None:
        created = {"base_model": "sandbox/tiny-1", "rank": 4, "seed": self._seed}
        answer = self._ask("/v1/models", created)
        if answer is None:
            return
        model_id = answer["model_id"]
        while not self._stop.is_set():
            calls = [
                threading.Thread(target=self._train, args=(model_id,), daemon=True)
                for _ in range(2)
            ]
            for call in calls:
                call.start()
            for call in calls:
                call.join()
            rate = 0.01 * (1 + self._seed / 2)
            self._ask(
                "/v1/optim_step", {"model_id": model_id, "adam_params": {"learning_rate": rate}}
            )
            self.steps += 1
            self._stop.wait(self._pause_s)

    def _train(self, model_id: str) -> None:
        data = [datum_of(text) for text in TEXTS]
        self._ask("/v1/forward_backward", {"model_id": model_id, "data": data})

    def _ask(self, path: str, body: object) -> dict[str, str] | None:
        """Ask until it is answered; None when there is no more time for it."""
        while not self._stop.is_set():
            with contextlib.suppress(httpx.TransportError):
                answer = self._client.post(path, json=body)
                if answer.status_code == httpx.codes.OK:
                    return answer.json()
                self.refused += 1
                wait_s = float(answer.headers.get("retry-after", 1))
                self._stop.wait(min(wait_s, MOST_WAITED_S))
                continue
            self._stop.wait(1)
        return None


@contextlib.contextmanager
def trainers(url: str, number: int, *, pause_s: float = 0.05) -> Iterator[list[Trainer]]:
    """Train so many models at once."""
    running = [Trainer(url, seed, pause_s=pause_s) for seed in range(number)]
    for trainer in running:
        trainer.start()
    try:
        yield running
    finally:
        for trainer in running:
            trainer.stop()
