"""Real servers and a real browser; every request the browser makes is kept, for tests to look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from m3rag.answering import OpenAIChat
from m3rag.knowledge_base import KnowledgeBase
from m3rag.settings import ServeSettings, Settings
from m3rag.testing import HashEncoder
from m3rag.testing.llm_server import LLMRequest, LLMServer, Reply

# What needs playwright or the server is imported by the fixtures: a test module that cannot import
# it is skipped, a conftest would be an error.
if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request

    from .sites import Site

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def quoting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with the embedded model over a PDF, that answers in its sentences."""
    from .sites import HANDBOOK, Site, serving, upload

    folder = tmp_path_factory.mktemp("quoting")
    handbook = folder / "handbook.pdf"
    handbook.write_bytes(HANDBOOK)
    kb = KnowledgeBase(folder / "index", settings=Settings(index=str(folder / "index")))
    with serving(kb, ServeSettings(data=folder / "data", max_upload_mb=20)) as url:
        upload(url, handbook)
        yield Site(url, kb)


@pytest.fixture
def writing(scripted: Site) -> Site:
    """A server whose answers are written by a language model, with an empty script."""
    scripted.script.clear()
    return scripted


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from .sites import ARABIC, ASTRAL, DUCKS, STARS, Site, serving, write

    folder = tmp_path_factory.mktemp("writing")
    site = Site("", None)  # type: ignore[arg-type] # both follow below

    def say(request: LLMRequest) -> Reply:
        site.asked.append(request)
        question = request.body["messages"][-1]["content"].rpartition("Question: ")[2]
        return next((reply for key, reply in site.script.items() if key in question), Reply("Ducks eat grass [1]."))

    with LLMServer(say) as server, OpenAIChat("scripted", base_url=server.base_url) as llm:
        encoder = HashEncoder()
        site.kb = KnowledgeBase(folder / "index", encoder=encoder, llm=llm, settings=Settings())
        site.kb.ingest(write(folder / "texts", ducks=DUCKS, stars=STARS, arabic=ARABIC, astral=ASTRAL))
        with serving(site.kb, ServeSettings(data=folder / "data")) as site.url:
            yield site


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server without documents, that asks for a key."""
    from .sites import KEY, Site, serving

    folder = tmp_path_factory.mktemp("empty")
    kb = KnowledgeBase(folder / "index", encoder=HashEncoder(), settings=Settings())
    with serving(kb, ServeSettings(data=folder / "data", api_key=SecretStr(KEY), max_upload_mb=1)) as url:
        yield Site(url, kb)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # A module's, not the session's: while it is open, pytest-asyncio cannot run tests in this thread.
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    from .sites import PATIENCE, playwright

    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and all that the browser asked for or complained of meanwhile."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Visits = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visits]:
    """Opens a site in a fresh browser context: `visit(site, **context options)`.

    In the end every request must have gone to the site, and nothing may have been refused by the
    content policy or raised in a script.
    """
    from .sites import PATIENCE

    seen: list[tuple[Site, Visit, BrowserContext]] = []

    def open_page(site: Site, *, context: BrowserContext | None = None, **options: Any) -> Page:
        context = context or browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(PATIENCE)
        one = Visit(context.new_page())
        # A lambda: Playwright writes an attribute on the handler, which a bound built-in refuses.
        context.on("request", lambda request: one.requests.append(request))  # noqa: PLW0108
        one.page.on("pageerror", lambda error: one.complaints.append(str(error)))
        one.page.on("console", lambda m: one.complaints.append(m.text) if "Content Security" in m.text else None)
        seen.append((site, one, context))
        one.page.goto(site.url)
        return one.page

    yield open_page
    for site, one, context in seen:
        foreign = [request.url for request in one.requests if not request.url.startswith(site.url)]
        context.close()
        assert foreign == []
        assert one.complaints == []
