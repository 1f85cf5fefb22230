"""The sandbox as a service: sessions, models, samplers, weights. No HTTP in here."""

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable

from tinkex_proxy.sandbox.adam import AdamParams
from tinkex_proxy.sandbox.bodies import BadRequest, Training, tokens_of
from tinkex_proxy.sandbox.draws import drawn
from tinkex_proxy.sandbox.engine import Engine, Live
from tinkex_proxy.sandbox.forms import (
    Asample,
    CreateModel,
    CreateSampler,
    LoadWeights,
    OptimStep,
    SaveForSampler,
    SaveWeights,
)
from tinkex_proxy.sandbox.futures import Promise, Promises, Result
from tinkex_proxy.sandbox.model import Base
from tinkex_proxy.sandbox.options import Options
from tinkex_proxy.sandbox.sessions import Sessions
from tinkex_proxy.sandbox.shelf import Sampler, Shelf
from tinkex_proxy.sandbox.trainer import Trained

__all__ = ["Service"]

MAX_RANK = 64
MAX_SAMPLES = 1024


class Service:
    """Everything a sandbox has.

    Args:
        options: what it is to be.
        now: gives monotonic seconds.
    """

    def __init__(self, options: Options, now: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        self.promises = Promises(options.keep_results)
        self.engine = Engine(self.promises, options.tick_s)
        self.sessions = Sessions(options.session_timeout_s, now, self._session_ended)
        self.shelf = Shelf({name: Base(options.seed + n) for n, name in enumerate(options.models)})
        self._sampler_numbers = itertools.count(1)

    def live(self, model_id: str) -> Live:
        """A model whose session has not ended.

        Raises:
            BadRequest: 404.
        """
        self.sessions.sweep()
        return self.engine.find(model_id)

    def create_model(self, form: CreateModel, body: bytes) -> Promise:
        """Make a model; it is there when its promise is kept."""
        session = self.sessions.find(form.session_id)
        base = self.shelf.base(form.base_model)
        lora = form.lora_config
        rank = 32 if lora is None else lora.rank
        if not 1 <= rank <= MAX_RANK:
            raise BadRequest(f"LoRA rank {rank} must be between 1 and {MAX_RANK}", 400)
        seed = lora.seed if lora is not None and lora.seed is not None else 0
        live = self._adopt(
            session.session_id,
            form.model_seq_id,
            form.user_metadata,
            lambda: Trained(base, form.base_model, rank, seed),
        )
        answer: dict[str, object] = {
            "model_id": live.model_id,
            "base_model": form.base_model,
            "lora_config": {"rank": rank},
            "type": "create_model",
        }
        return self.engine.submit(live, 0, body, lambda _: answer)

    def train(self, call: Training, body: bytes) -> Promise:
        """Take a `forward_backward` or `forward`."""
        live = self.live(call.model_id)
        return self.engine.submit(live, call.seq_id, body, lambda trained: trained.run(call))

    def optim_step(self, form: OptimStep, body: bytes) -> Promise:
        """Take an `optim_step`."""
        params = form.adam_params or AdamParams()
        if params.learning_rate < 0:
            raise BadRequest("learning_rate must not be negative", 422)
        work = lambda trained: {"metrics": trained.step(params), "type": "optim_step"}  # noqa: E731
        return self._on_lane(form.model_id, form.seq_id, body, work)

    def save_weights(self, form: SaveWeights, body: bytes) -> Promise:
        """Save a checkpoint that training can go on from."""
        path = f"tinker://{form.model_id}/weights/{form.path or uuid.uuid4().hex[:8]}"

        def work(trained: Trained) -> Result:
            self.shelf.put(path, trained.save(optimizer=True), overwrite=form.overwrite)
            return {"path": path, "type": "save_weights"}

        return self._on_lane(form.model_id, form.seq_id, body, work)

    def save_for_sampler(self, form: SaveForSampler, body: bytes) -> Promise:
        """Save weights for sampling: under a name, or as a sampler of their own."""
        if form.path is None and form.sampling_session_seq_id is None:
            raise BadRequest("either path or sampling_session_seq_id must be given")

        def work(trained: Trained) -> Result:
            saved = trained.save(optimizer=False)
            answer: dict[str, object] = {"type": "save_weights_for_sampler"}
            if form.path is None:
                sampler = self.shelf.open(self._sampler_id(), saved, None)
                return {**answer, "path": None, "sampling_session_id": sampler.sampler_id}
            path = f"tinker://{form.model_id}/sampler_weights/{form.path}"
            self.shelf.put(path, saved, overwrite=True)
            return {**answer, "path": path, "sampling_session_id": None}

        return self._on_lane(form.model_id, form.seq_id, body, work)

    def load_weights(self, form: LoadWeights, body: bytes) -> Promise:
        """Load a checkpoint into a model, or make the model that it is loaded into."""
        saved = self.shelf.get(form.path)

        def work(trained: Trained) -> Result:
            trained.load(saved, optimizer=form.optimizer)
            return {"type": "load_weights"}

        if form.model_id is not None:
            return self._on_lane(form.model_id, form.seq_id, body, work)
        if form.session_id is None or form.model_seq_id is None:
            raise BadRequest("either model_id, or session_id and model_seq_id, must be given")
        session = self.sessions.find(form.session_id)
        base = self.shelf.base(saved.base_model)
        live = self._adopt(
            session.session_id,
            form.model_seq_id,
            form.user_metadata,
            lambda: Trained(base, saved.base_model, saved.rank, 0),
        )
        return self.engine.submit(live, 0, body, work)

    def unload(self, model_id: str) -> Promise:
        """Take a model out of memory."""
        self.engine.remove(self.live(model_id))
        promise = self.promises.make(model_id)
        promise.keep({"model_id": model_id, "status": "unloaded", "type": "unload_model"})
        return promise

    def finish_session(self, session_id: str) -> None:
        """End a session, and its models with it; ending it again changes nothing."""
        with contextlib.suppress(BadRequest):
            self.sessions.end(self.sessions.find(session_id).session_id)

    def create_sampler(self, form: CreateSampler) -> Sampler:
        """Open a sampling session."""
        self.sessions.find(form.session_id)
        if (form.base_model is None) == (form.model_path is None):
            raise BadRequest("Exactly one of base_model or model_path must be provided", 400)
        return self._open(form.base_model, form.model_path)

    def sample(self, form: Asample, body: bytes) -> tuple[str, list[str]]:
        """Take a sampling request; gives its promise's id and an id for each sequence."""
        sampler = self._sampler_of(form)
        if form.seq_id is not None and form.seq_id in sampler.seen:
            first, request_id, sequences = sampler.seen[form.seq_id]
            if first != body:
                raise BadRequest("Sampling request sequence number was reused", 409)
            return request_id, sequences
        if not 1 <= form.num_samples <= MAX_SAMPLES:
            raise BadRequest(f"num_samples must be between 1 and {MAX_SAMPLES}", 400)
        prompt = [t for chunk in form.prompt.chunks for t in tokens_of(chunk.tokens).tolist()]
        promise = self.promises.make()
        sequences = [uuid.uuid4().hex for _ in range(form.num_samples)]
        if form.seq_id is not None:
            sampler.seen[form.seq_id] = (body, promise.request_id, sequences)
        seed = [self.options.seed, int(promise.request_id)]
        self.engine.later(promise, lambda: drawn(sampler.adapter, form, prompt, seed))
        return promise.request_id, sequences

    def _sampler_of(self, form: Asample) -> Sampler:
        if form.sampling_session_id is None:
            return self._open(form.base_model, form.model_path)
        return self.shelf.sampler(form.sampling_session_id)

    def _open(self, base_model: str | None, model_path: str | None) -> Sampler:
        if model_path is not None:
            return self.shelf.open_saved(self._sampler_id(), model_path)
        return self.shelf.open_base(self._sampler_id(), base_model or "")

    def _sampler_id(self) -> str:
        return f"sampling_{next(self._sampler_numbers):08x}"

    def _adopt(
        self,
        session_id: str,
        model_seq_id: int,
        metadata: dict[str, object] | None,
        make: Callable[[], Trained],
    ) -> Live:
        model_id = f"{session_id}:train:{model_seq_id}"
        live = self.engine.models.get(model_id)
        if live is None:
            live = Live(model_id, session_id, make(), metadata)
            self.engine.models[model_id] = live
        return live

    def _on_lane(
        self, model_id: str, seq_id: int | None, body: bytes, work: Callable[[Trained], Result]
    ) -> Promise:
        return self.engine.submit(self.live(model_id), seq_id, body, work)

    def _session_ended(self, session_id: str) -> None:
        for live in list(self.engine.models.values()):
            if live.session_id == session_id:
                self.engine.remove(live)
