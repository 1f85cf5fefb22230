"""What a sandbox can be asked to be."""

from dataclasses import dataclass

from tinkex_proxy.sandbox.plans import Plan

__all__ = ["FLAVOURS", "Options"]

NO_FAULTS = Plan()
FLAVOURS = ("both", "protobuf", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of one sandbox.

    Attributes:
        flavours: which training bodies it takes: `both`, `protobuf` (415 for JSON, as SkyRL 0.4.0)
            or `json` (500 for protobuf, as SkyRL 0.3.0).
        models: names of the base models it offers.
        seed: of the frozen base weights; the same seed gives the same numbers.
        session_timeout_s: a session without a heartbeat for so long ends, and its models with it.
        tick_s: the engine starts work once in so long, as a real trainer does; 0 is at once.
        poll_hold_s: how long `retrieve_future` holds a poll before it answers 408.
        api_keys: keys it accepts; empty accepts everybody.
        max_chunk_len: datums per request, told in `client/config`.
        max_chunk_bytes: bytes per request, told in `client/config`.
        keep_results: how many results are kept; older ones are answered with 410.
        metadata_above_bytes: results larger than this are announced before they are sent, where the
            poll allows it.
        faults: what goes wrong from the start on.
    """

    flavours: str = "both"
    models: tuple[str, ...] = ("sandbox/tiny-1",)
    seed: int = 0
    session_timeout_s: float = 300.0
    tick_s: float = 0.0
    poll_hold_s: float = 45.0
    api_keys: frozenset[str] = frozenset()
    max_chunk_len: int = 1024
    max_chunk_bytes: int = 5_000_000
    keep_results: int = 100_000
    metadata_above_bytes: int = 1_000_000
    faults: Plan = NO_FAULTS

    def __post_init__(self) -> None:
        """Refuse what would otherwise be taken for something else."""
        if self.flavours not in FLAVOURS:
            raise ValueError(f"flavours is {self.flavours!r}; it is one of {', '.join(FLAVOURS)}")
