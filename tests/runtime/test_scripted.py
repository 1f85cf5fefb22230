import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.scripted import ScriptedTransport
from tinkex_proxy.runtime.transport import Request, Response, TransportFault


async def test_it_answers_from_its_script_and_remembers_what_was_asked() -> None:
    script = iter([Response(200, {}, b"ok"), Fault.RESET])
    transport = ScriptedTransport(lambda _: next(script))
    assert (await transport.send(Request("GET", "/a"))).body == b"ok"
    with pytest.raises(TransportFault) as caught:
        await transport.send(Request("GET", "/b"))
    assert caught.value.fault is Fault.RESET
    await transport.close()
    assert ([r.path for r in transport.requests], transport.closed) == (["/a", "/b"], True)
