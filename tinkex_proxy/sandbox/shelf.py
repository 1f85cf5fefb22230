"""Saved weights by path, and the samplers that were opened on them."""

from dataclasses import dataclass, field

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.model import Adapter, Base
from tinkex_proxy.sandbox.trainer import Checkpoint

__all__ = ["Sampler", "Shelf"]


@dataclass(slots=True)
class Sampler:
    """Weights that are sampled from; `seen` holds the promise of every numbered request."""

    sampler_id: str
    base_model: str
    model_path: str | None
    adapter: Adapter
    seen: dict[int, tuple[bytes, str, list[str]]] = field(default_factory=dict)
    clients: int = 1

    def join(self) -> int:
        """Number one more client; the first is 0."""
        self.clients += 1
        return self.clients - 1


class Shelf:
    """Everything that was saved.

    Args:
        bases: the frozen weights by base model.
    """

    def __init__(self, bases: dict[str, Base]) -> None:
        self._bases = bases
        self._saved: dict[str, Checkpoint] = {}
        self.samplers: dict[str, Sampler] = {}

    def base(self, name: str) -> Base:
        """The frozen weights of a base model.

        Raises:
            BadRequest: 404.
        """
        base = self._bases.get(name)
        if base is None:
            known = ", ".join(self._bases)
            raise BadRequest(f"unknown base_model {name!r}; this sandbox has {known}", 404)
        return base

    def put(self, path: str, saved: Checkpoint, *, overwrite: bool) -> None:
        """Save under a path.

        Raises:
            BadRequest: 409, the path is taken.
        """
        if path in self._saved and not overwrite:
            raise BadRequest(f"Checkpoint {path} already exists", 409)
        self._saved[path] = saved

    def get(self, path: str) -> Checkpoint:
        """What was saved under a path.

        Raises:
            BadRequest: 404.
        """
        saved = self._saved.get(path)
        if saved is None:
            raise BadRequest(f"No weights at {path}", 404)
        return saved

    def paths(self, model_id: str | None = None) -> list[str]:
        """Everything that was saved, or what one model was saved as."""
        start = "tinker://" if model_id is None else f"tinker://{model_id}/"
        return [path for path in self._saved if path.startswith(start)]

    def remove(self, path: str) -> None:
        """Forget what was saved.

        Raises:
            BadRequest: 404.
        """
        self.get(path)
        del self._saved[path]

    def sampler(self, sampler_id: str) -> Sampler:
        """An open sampler.

        Raises:
            BadRequest: 404.
        """
        found = self.samplers.get(sampler_id)
        if found is None:
            raise BadRequest("Sampling session not found", 404)
        return found

    def open_saved(self, sampler_id: str, path: str) -> Sampler:
        """Open a sampler on saved weights."""
        return self.open(sampler_id, self.get(path), path)

    def open(self, sampler_id: str, saved: Checkpoint, path: str | None) -> Sampler:
        """Open a sampler on weights."""
        adapter = Adapter(self.base(saved.base_model), saved.rank, 0)
        adapter.weights = saved.weights
        sampler = Sampler(sampler_id, saved.base_model, path, adapter)
        self.samplers[sampler_id] = sampler
        return sampler

    def open_base(self, sampler_id: str, base_model: str) -> Sampler:
        """Open a sampler on a base model as it is."""
        adapter = Adapter(self.base(base_model), 1, 0)
        sampler = Sampler(sampler_id, base_model, None, adapter)
        self.samplers[sampler_id] = sampler
        return sampler
