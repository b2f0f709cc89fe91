"""Make the pictures of the page in docs/images, from a real server over the sample documents.

python apps/chat/screenshots.py [FOLDER]
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
WIDE = {"width": 1360, "height": 820}
NARROW = {"width": 390, "height": 780}
QUESTION = "Who founded the Debian project, and when?"
DUCKS = "What do ducks eat?"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of `m3rag serve` over an empty index."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["serve", "--port", str(port), "--index", str(folder / "index"), "--data", str(folder / "data")]
    process = subprocess.Popen([sys.executable, "-c", "from m3rag.cli import main; main()", *command], cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(300):
            if answers(url + "health"):
                break
            if process.poll() is not None:
                raise SystemExit("m3rag serve ended; its reason stands above")
            threading.Event().wait(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    """Whether something answers at an address."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def ask(page: Page, question: str) -> None:
    """Ask, and wait for the answer."""
    turns = page.locator(".turn").count()
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_label("Question", exact=True).press("Enter")
    expect(page.locator(".turn .tools")).to_have_count(turns + 1)


def pictures(page: Page, url: str, folder: Path, broken: Path) -> None:
    """Walk through the main states."""
    page.goto(url)
    files = [*sorted((ROOT / "examples" / "documents").iterdir()), broken]
    page.get_by_label("Files to add").set_input_files(files)
    expect(page.locator("#document-list > li")).to_have_count(len(files) - 1)
    expect(page.locator(".job progress")).to_have_count(0)
    page.screenshot(path=folder / "chat-documents.png")
    page.get_by_role("button", name="Dismiss all").click()
    ask(page, QUESTION)
    page.locator(".turn button.cite").first.click()
    expect(page.locator("#source .box").first).to_be_in_viewport()
    page.mouse.move(0, 0)
    page.screenshot(path=folder / "chat-citation.png")
    page.get_by_role("button", name="Dark colours").click()
    page.screenshot(path=folder / "chat-dark.png")
    page.get_by_role("button", name="Dark colours").click()
    page.get_by_role("button", name="New", exact=True).click()
    ask(page, DUCKS)
    page.locator(".turn button.cite").first.click()
    expect(page.locator("#source mark").first).to_be_in_viewport()
    page.locator(".considered summary").click()
    page.locator(".choice").get_by_text("word by word (ColBERT)").click()
    for number in (0, 1):
        expect(page.locator(".hits > li").nth(number).locator("mark").first).to_be_attached()
    page.mouse.move(0, 0)
    page.locator(".choice").evaluate("box => box.scrollIntoView({block: 'start'})")
    page.screenshot(path=folder / "chat-highlights.png")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.get_by_role("button", name="Conversation", exact=True).click()
    page.locator(".considered summary").click()
    page.screenshot(path=folder / "chat-narrow.png")


def main() -> None:
    """Make the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=180_000)
    with tempfile.TemporaryDirectory() as work, server(Path(work)) as url, sync_playwright() as playwright:
        broken = Path(work) / "scan (damaged).pdf"
        broken.write_bytes(b"%PDF-1.7 and nothing more")
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        pictures(browser.new_page(viewport=WIDE), url, folder, broken)  # type: ignore[arg-type]
        browser.close()


if __name__ == "__main__":
    main()
