"""Makes the pictures of `docs/page.md`: four programs train, and the upstream is away for a minute.

    make pictures

The sandbox is the upstream, the breaker is as it comes. A run takes five minutes.
"""

import sys
import tempfile
from pathlib import Path

import httpx
from playwright.sync_api import Page

from tests.e2e.browser import DESKTOP, PHONE, Looker, looking
from tests.e2e.trainers import trainers
from tests.processes import processes

WHERE = Path(__file__).parents[2] / "docs" / "images"
TALL = {**DESKTOP, "height": 1130}
BEFORE_S = 70
OUTAGE_S = 60
# A breaker that has failed its probe stays open for longer.
PATIENCE_MS = 180_000
AFTER_S = 30


def take(page: Page, name: str, *, whole: bool = False) -> None:
    page.screenshot(path=WHERE / f"page-{name}.png", full_page=whole)
    sys.stdout.write(f"{name}\n")
    sys.stdout.flush()


def part(page: Page, name: str, selector: str) -> None:
    page.locator(selector).screenshot(path=WHERE / f"page-{name}.png")


def run(one: Looker, upstream: str) -> None:
    page = one.page
    page.wait_for_timeout(BEFORE_S * 1000)
    page.get_by_role("radio", name="5 min", exact=True).check()
    page.wait_for_timeout(1500)
    take(page, "1-before")
    faults = {"faults": [{"kind": "reset", "for_s": OUTAGE_S}]}
    httpx.put(f"{upstream}/sandbox/faults", json=faults, trust_env=False)
    page.wait_for_timeout((OUTAGE_S - 15) * 1000)
    take(page, "2-outage")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(1500)
    take(page, "phone")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(TALL)
    page.wait_for_timeout(15 * 1000)
    page.locator(".breaker .state", has_text="closed").wait_for(timeout=PATIENCE_MS)
    page.wait_for_timeout(AFTER_S * 1000)
    take(page, "3-after")
    page.locator(".moves summary").click()
    part(page, "4-breaker", ".breaker")
    part(page, "5-events", "section[aria-labelledby=events-title]")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(1500)
    take(page, "dark", whole=True)


def main() -> None:
    WHERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as state, processes() as start:
        upstream = start("sandbox", "--port", "0", "--tick-ms", "100")
        options = ["--upstream.base-url", upstream.url, "--journal.state-dir", state]
        proxy = start("serve", "--port", "0", *options)
        with looking(viewport=TALL) as one, trainers(proxy.url, 4, pause_s=0.3):
            one.page.goto(f"{proxy.url}/")
            run(one, upstream.url)


if __name__ == "__main__":
    main()
