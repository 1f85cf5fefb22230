"""Training calls, in the flavours the sandbox was told to take."""

from starlette.requests import Request
from starlette.responses import Response

from tinkex_proxy.sandbox import forms
from tinkex_proxy.sandbox.bodies import BadRequest, from_json, from_protobuf
from tinkex_proxy.sandbox.http import PROTOBUF, Routes, promised, read_fields, read_form
from tinkex_proxy.sandbox.service import Service

__all__ = ["TrainingFace"]


class TrainingFace:
    """Training calls."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create_model(self, request: Request) -> Response:
        """Make a model."""
        return promised(self._service.create_model(*await read_form(request, forms.CreateModel)))

    async def forward_backward(self, request: Request) -> Response:
        """Take a training call of either flavour."""
        body = await _unpacked(request)
        protobuf = request.headers.get("content-type", "").startswith(PROTOBUF)
        if protobuf and self._service.options.flavours == "json":
            return Response("Internal Server Error", 500, media_type="text/plain")
        if not protobuf and self._service.options.flavours == "protobuf":
            raise BadRequest(f"forward_backward requires a {PROTOBUF} body", 415)
        call = from_protobuf(body) if protobuf else from_json(body)
        return promised(self._service.train(call, body))

    async def forward(self, request: Request) -> Response:
        """Take a forward call of the JSON generation."""
        if self._service.options.flavours == "protobuf":
            raise BadRequest("Not Found", 404)
        body = await _unpacked(request)
        return promised(self._service.train(from_json(body), body))

    async def optim_step(self, request: Request) -> Response:
        """Apply the gradients."""
        return promised(self._service.optim_step(*await read_form(request, forms.OptimStep)))

    async def save_weights(self, request: Request) -> Response:
        """Save a checkpoint."""
        return promised(self._service.save_weights(*await read_form(request, forms.SaveWeights)))

    async def save_for_sampler(self, request: Request) -> Response:
        """Save weights for sampling."""
        return promised(
            self._service.save_for_sampler(*await read_form(request, forms.SaveForSampler))
        )

    async def load_weights(self, request: Request) -> Response:
        """Load a checkpoint."""
        return promised(self._service.load_weights(*await read_form(request, forms.LoadWeights)))

    async def unload(self, request: Request) -> Response:
        """Unload a model."""
        body = await read_fields(request)
        return promised(self._service.unload(str(body.get("model_id"))))

    def routes(self) -> Routes:
        """Path, method and endpoint of each."""
        return {
            "/api/v1/create_model": ("POST", self.create_model),
            "/api/v1/forward_backward": ("POST", self.forward_backward),
            "/api/v1/forward": ("POST", self.forward),
            "/api/v1/optim_step": ("POST", self.optim_step),
            "/api/v1/save_weights": ("POST", self.save_weights),
            "/api/v1/save_weights_for_sampler": ("POST", self.save_for_sampler),
            "/api/v1/load_weights": ("POST", self.load_weights),
            "/api/v1/unload_model": ("POST", self.unload),
        }


async def _unpacked(request: Request) -> bytes:
    """The body, decompressed if it says that it is compressed."""
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return body
    try:
        import zstandard  # noqa: PLC0415 - optional
    except ImportError:
        raise BadRequest(f"content-encoding {encoding} is not supported", 415) from None
    if encoding != "zstd":
        raise BadRequest(f"content-encoding {encoding} is not supported", 415)
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    except zstandard.ZstdError as error:
        raise BadRequest(f"the body is not zstd: {error}", 400) from None
