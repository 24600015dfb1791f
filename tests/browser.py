"""What the tests of the server's page share: servers at ports of their own, and chromium's tabs.

A test file imports the functions, and names this module in `pytest_plugins` for the fixtures.
PYTEST_DONT_REWRITE: it is imported before pytest makes it a plugin.
"""

import re
import shutil
import threading
import urllib.parse

import pytest
import uvicorn
from serving import two_models, wait_until

from hlm_jax.serving.app import create_app

WAIT = 20_000  # milliseconds that a test waits for the page


class Site:
    """A server at a port of its own; `close` with force ends it as a broken process ends."""

    def __init__(self, app, *, lifespan="off"):
        self.app = app
        config = uvicorn.Config(app, port=0, log_level="error", lifespan=lifespan)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_until(lambda: self._server.started)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"

    def close(self, *, force=True):
        self._server.force_exit, self._server.should_exit = force, True
        self._thread.join()


@pytest.fixture(scope="module")
def models(trained):
    return two_models(trained[0])


@pytest.fixture(scope="module")
def site(models):
    site = Site(app_of(models), lifespan="on")
    wait_until(lambda: all(one.ready for one in models.values()))
    yield site
    site.close(force=False)


def app_of(models, **options):
    return create_app(models, allowed_hosts=["127.0.0.1"], **options)


@pytest.fixture
def another(site):
    """Starts further servers of the warm models; they end with the test."""
    begun = []

    def begin(models, **options):
        begun.append(Site(app_of(models, **options)))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, site):
    """A tab that has nothing; what it asked for and complained of is checked at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda message: page.complaints.append(message.text))
    yield page
    context.close()
    ours = re.compile(r"(http://127\.0\.0\.1:\d+/|blob:|data:)")
    assert all(ours.match(url) for url in page.asked), page.asked
    failures = ("Failed to load resource",)  # an answer of 4xx, which some tests provoke
    complaints = [c for c in page.complaints if not c.startswith(failures)]
    assert not complaints, complaints


def go(page, url, **words):
    """Opens the page, fresh, at an address."""
    page.goto("about:blank")
    page.goto(f"{url}#{urllib.parse.urlencode(words)}")
    page.wait_for_selector("html[data-begun]")


def written(page):
    """The text below the prompt, when the server has finished."""
    page.wait_for_selector("#written .token", state="attached")
    page.wait_for_selector("#stop:disabled")
    return "".join(page.locator("#written .token").all_text_contents())


def hash_of(page):
    return dict(urllib.parse.parse_qsl(page.url.partition("#")[2]))


def heat(page, panel="read"):
    page.wait_for_selector(f"#{panel}-text span")
    page.wait_for_selector(f"#{panel}-box:not([aria-busy])")
    return page.locator(f"#{panel}-text").inner_text()
