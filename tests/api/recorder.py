"""An upstream that keeps the bytes of every request and answers with bytes of a test's choice."""

import asyncio


class Recorder:
    """Keeps the bytes of every request and answers with bytes of the test's choice."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        self.before_answering = asyncio.Event()
        self.before_answering.set()
        self.hung_up = asyncio.Event()
        self.then_hang_up = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line
                )
                if b"content-length" in fields:
                    body = await reader.readexactly(int(fields[b"content-length"]))
                else:
                    body = b""
                self.requests.append((head, body))
                if b"healthz" in head.split(b"\r\n")[0]:
                    self.requests.pop()
                else:
                    waiting = asyncio.ensure_future(self.before_answering.wait())
                    leaving = asyncio.ensure_future(reader.read(1))
                    await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
                    if leaving.done():
                        self.hung_up.set()
                        return
                    leaving.cancel()
                    await asyncio.wait([leaving])  # or reading on would be taken ill
                writer.write(self.answer)
                await writer.drain()
                if self.then_hang_up:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
