import asyncio
import re
from pathlib import Path

import pytest

import tinkex_proxy.api.web
from tests.api.conftest import Running
from tinkex_proxy.api.web.pages import PAGE_HEADERS, read_files

STATIC = Path(tinkex_proxy.api.web.__file__).parent / "static"
FILES = read_files()
OURS = sorted(path for path in FILES if not path.startswith("uplot/"))


def test_all_files_and_no_others_are_served() -> None:
    there = {str(p.relative_to(STATIC)) for p in STATIC.rglob("*") if p.is_file()}
    assert set(FILES) == there
    assert {"index.html", "page.css", "app.js", "uplot/LICENSE"} <= there


async def test_the_page_is_at_the_root(start) -> None:
    """It is there whatever the upstream does: it is what tells about that."""
    proxy = await start("http://127.0.0.1:9")
    page = await proxy.client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.content == (STATIC / "index.html").read_bytes()


@pytest.fixture
async def still(start) -> Running:
    return await start("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("page.css", "text/css; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("uplot/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
        ("uplot/LICENSE", "text/plain; charset=utf-8"),
    ],
)
async def test_every_file_has_its_type(still: Running, path: str, media_type: str) -> None:
    answer = await still.client.get(f"/ui/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.content == (STATIC / path).read_bytes()


async def test_every_answer_says_what_the_page_may_do(still: Running) -> None:
    """Only what comes from here; framed by nobody; no form; nothing that is inline."""
    for path in ("/", *(f"/ui/{name}" for name in FILES)):
        answer = await still.client.get(path)
        policy = answer.headers["content-security-policy"]
        directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert directives == {
            "default-src": "'self'",
            "object-src": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert {name: answer.headers[name] for name in PAGE_HEADERS} == dict(PAGE_HEADERS)
        assert "access-control-allow-origin" not in answer.headers


async def test_what_has_not_changed_is_not_sent_again(still: Running) -> None:
    first = await still.client.get("/ui/page.css")
    assert first.headers["cache-control"] == "no-cache"
    known = {"if-none-match": f'"other", {first.headers["etag"]}'}
    second = await still.client.get("/ui/page.css", headers=known)
    assert (second.status_code, second.content) == (304, b"")
    assert second.headers["etag"] == first.headers["etag"]
    changed = await still.client.get("/ui/page.css", headers={"if-none-match": '"other"'})
    assert changed.status_code == 200


async def test_a_head_is_answered_without_the_body(still: Running) -> None:
    answer = await still.client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["nothing.js", "../pages.py", "%2e%2e/pages.py", "index.html/", ""]
)
async def test_nothing_else_is_there(still: Running, path: str) -> None:
    """As it is written: a client tidies a path up before it sends it."""
    host, port = still.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /ui/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert (await reader.readline()).split()[1] == b"404"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", OURS)
def test_nothing_of_ours_names_another_place(path: str) -> None:
    """The page works without a network; XML's names of itself are no places."""
    text = FILES[path].body.decode().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) == []


def test_nothing_in_the_markup_is_inline() -> None:
    """The policy forbids it, so it would silently not work."""
    page = FILES["index.html"].body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_what_the_page_and_its_modules_load_is_there() -> None:
    page = FILES["index.html"].body.decode()
    named = set(re.findall(r'(?:src|href)="ui/([^"]+)"', page))
    for path in OURS:
        if path.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', FILES[path].body.decode()))
    assert named <= set(FILES)
    # and nothing lies there that nobody loads
    assert set(FILES) - named == {"index.html", "uplot/LICENSE"}


def test_the_chart_library_is_the_one_that_its_licence_goes_with() -> None:
    script = FILES["uplot/uPlot.iife.min.js"].body.decode()
    assert script.startswith("/*! https://github.com/leeoniya/uPlot (v1.6.32) */")
    assert "MIT License" in FILES["uplot/LICENSE"].body.decode()


def test_a_file_of_an_unknown_kind_is_a_mistake(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "x.wasm").write_bytes(b"")
    monkeypatch.setattr("tinkex_proxy.api.web.pages.files", lambda _: tmp_path)
    with pytest.raises(KeyError):
        read_files()
