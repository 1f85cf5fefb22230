"""A headless Chromium that looks at the page, and what it must not do there."""

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Page, Request, sync_playwright

from tests.e2e.environments import chromium

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# A machine that is busy with other tests is slow to do what takes a second.
PATIENCE_MS = 20_000


class Looker:
    """Somebody with a browser.

    Attributes:
        page: the page that is open.
        complaints: the browser's: errors of scripts, breaches of the page's policy.
        asked: URLs of everything that was asked for.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type != "log" else 0
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asks)

    def _asks(self, request: Request) -> None:
        self.asked.append(request.url)

    def until(self, text: str, *, at: str = "body") -> None:
        """Wait until something says a text."""
        self.page.locator(at).filter(has_text=text).first.wait_for(state="attached")


@contextlib.contextmanager
def looking(**options: object) -> Iterator[Looker]:
    """Open a browser; the options are those of a new page."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox wants user namespaces, which containers and root seldom have.
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-background-networking"]
        )
        try:
            yield Looker(browser.new_page(**{"viewport": DESKTOP, **options}))
        finally:
            browser.close()
