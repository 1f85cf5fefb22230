from tinkex_proxy.runtime.events import Event, Hub, Note


class Broken:
    def on_event(self, event: Event) -> None:
        raise RuntimeError("listener")


class Kept:
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.seen.append(event)


def test_a_listener_that_raises_breaks_nobody() -> None:
    """The call goes on, the other listeners hear it, the fault is reported."""
    kept, reported = Kept(), []
    hub = Hub([Broken(), kept], reported.append)
    hub.tell(Note("info", "hello"))
    assert kept.seen == [Note("info", "hello")]
    assert [str(error) for error in reported] == ["listener"]
