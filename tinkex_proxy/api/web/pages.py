"""Serves the page at `/` and its files under `/ui/`: a closed list, read once, off this package.

There is no build step: what is in `static/` is what the browser gets. Nothing comes from anywhere
else, and the browser is told so: by the policy below a page of ours can load, ask and be framed by
nobody but this origin, and no script or style in the markup counts. (uPlot sets styles through the
DOM, which is none of that.)

Files are kept by the browser and asked for again each time (`no-cache` with an `ETag`): on loopback
that costs nothing, and a proxy that was upgraded never meets scripts of the one before.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter, HTTPException, Request, Response

__all__ = ["PAGE_HEADERS", "File", "page_router", "read_files"]

_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
_INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is served."""

    body: bytes
    media_type: str
    etag: str


def read_files() -> dict[str, File]:
    """All files of the page, by their path below `static/`.

    Raises:
        KeyError: there is one of a kind that is not served.
    """
    return dict(_read(files(__package__).joinpath("static"), ""))


def page_router(served: Mapping[str, File]) -> APIRouter:
    """The routes of the page; not in the OpenAPI document, for they are for eyes.

    Args:
        served: the files by path.
    """
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        """The page."""
        return _answer(request, served[_INDEX])

    # One route, so that it is one series of the HTTP metrics.
    @router.api_route("/ui/{path:path}", methods=["GET", "HEAD"])
    async def one(path: str, request: Request) -> Response:
        """A file of the page."""
        if path not in served:
            raise HTTPException(404)
        return _answer(request, served[path])

    return router


def _answer(request: Request, file: File) -> Response:
    headers = {**PAGE_HEADERS, "etag": file.etag}
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


def _read(folder: Traversable, prefix: str) -> list[tuple[str, File]]:
    found: list[tuple[str, File]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _read(entry, f"{name}/")
            continue
        body = entry.read_bytes()
        dot = entry.name.rfind(".")
        media_type = _TYPES[entry.name[dot:] if dot >= 0 else ""]
        etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        found.append((name, File(body, media_type, etag)))
    return found
