"""The left pane: files in, their state, their errors, and out again."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import docx
import pytest

from m3rag.testing.llm_server import Reply

from ..reading.pdfs import pdf
from .conftest import Visits
from .sites import KEY, Site, ask, expect, ready

if TYPE_CHECKING:
    from playwright.sync_api import Route


def word_file(path: Path) -> Path:
    document = docx.Document()
    document.core_properties.title = "Notes on herons"
    document.add_paragraph("The heron waits for frogs at the river.")
    document.save(str(path))
    return path


def test_a_pdf_a_word_file_and_a_broken_file_each_get_their_own_word(
    quoting: Site, visit: Visits, tmp_path: Path
) -> None:
    good = tmp_path / "swans.pdf"
    good.write_bytes(pdf("Swans are large birds.", title="On swans"))
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing more")
    page = visit(quoting)
    ready(page)
    page.get_by_label("Files to add").set_input_files([good, word_file(tmp_path / "herons.docx"), broken])
    documents = page.locator("#document-list")
    expect(documents.get_by_text("On swans")).to_be_visible()
    expect(documents.get_by_text("Notes on herons")).to_be_visible()
    failed = page.locator(".job.failed")
    expect(failed).to_have_count(1)
    expect(failed).to_contain_text("broken.pdf")
    expect(failed).to_contain_text("damaged")
    failed.get_by_role("button", name="Dismiss broken.pdf").click()
    expect(page.locator("#uploads")).to_be_hidden()
    # One that is deleted is asked about first.
    remove = page.get_by_role("button", name="Delete On swans")
    remove.click()
    page.get_by_role("button", name="Cancel").click()
    expect(documents.get_by_text("On swans")).to_be_visible()
    remove.click()
    expect(page.get_by_role("dialog")).to_contain_text("1 passage")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(documents.get_by_text("On swans")).to_have_count(0)
    assert "swans.pdf" not in {record.id for record in quoting.kb.documents()}


def test_files_are_dropped_anywhere_on_the_page(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    name = "<b>odd</b> ünï & name.txt"
    page.evaluate(
        """([name, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
            const on = document.querySelector("#turns");
            on.dispatchEvent(new DragEvent("dragover", {dataTransfer: data, bubbles: true, cancelable: true}));
            on.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        [name, base64.b64encode(b"Otters play in the stream.").decode()],
    )
    row = page.locator("#document-list").get_by_text("ünï").first
    expect(row).to_be_visible()
    assert page.locator("#document-list b").count() == 0
    page.get_by_role("button", name="Delete").filter(has_text="").and_(page.locator("[aria-label*='ünï']")).click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#document-list").get_by_text("ünï")).to_have_count(0)


def test_a_file_on_its_way_shows_how_far_it_is(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    jobs = [
        {"id": "1", "name": "a.pdf", "state": "encoding", "done": 12, "total": 40, "message": "", "document_id": None},
        {"id": "2", "name": "b.pdf", "state": "queued", "done": 0, "total": 0, "message": "", "document_id": None},
        {"id": "3", "name": "c.pdf", "state": "done", "done": 4, "total": 4, "message": "page 3 has no text",
         "document_id": "c.pdf"},
    ]  # fmt: skip
    page.route("**/api/documents", lambda route: route.fulfill(body=json.dumps({"documents": [], "jobs": jobs})))
    page.reload()
    rows = page.locator("#uploads > li")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("Encoding 12 of 40")
    assert rows.nth(0).get_by_role("progressbar").evaluate("bar => bar.value") == pytest.approx(0.3)
    expect(rows.nth(1)).to_contain_text("Waiting")
    expect(rows.nth(1).get_by_role("progressbar")).to_have_count(0)  # nothing happens to it yet
    expect(rows.nth(2)).to_contain_text("page 3 has no text")
    expect(rows.nth(2).get_by_role("progressbar")).to_have_count(0)


def test_what_ended_is_dismissed_at_once(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    failed = {"state": "failed", "done": 0, "total": 0, "document_id": None}
    jobs = [
        {"id": "1", "name": "a.bin", "message": "a.bin is of no known format: see `m3rag ingest`", **failed},
        {"id": "2", "name": "b.pdf", "message": "is a damaged PDF", **failed},
    ]
    page.route("**/api/documents", lambda route: route.fulfill(body=json.dumps({"documents": [], "jobs": jobs})))
    page.reload()
    first = page.locator("#uploads > li").first.locator(".message")
    expect(first).to_have_text("is of no known format: see m3rag ingest")  # its name stands above it
    expect(first.locator("code")).to_have_text("m3rag ingest")
    expect(page.locator("#announce")).to_be_empty()  # what ended before is no news
    sent: list[str] = []

    def forget(route: Route) -> None:
        sent.append(f"{route.request.method} {route.request.url[-1]}")
        route.fulfill(status=204)

    page.route("**/api/jobs/*", forget)
    with page.expect_response("**/api/jobs/2"):
        page.get_by_role("button", name="Dismiss all").click()
    assert sent == ["DELETE 1", "DELETE 2"]  # the server forgets them too
    expect(page.locator("#uploads")).to_be_hidden()
    expect(page.get_by_role("button", name="Dismiss all")).to_be_hidden()


def test_a_file_over_which_the_server_died_is_tried_again_or_removed(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    failed = {"state": "failed", "done": 0, "total": 0, "document_id": None, "can_retry": True}
    jobs = [{"id": str(n), "name": f"{n}.pdf", "message": f"{n}.pdf was begun 3 times", **failed} for n in (1, 2)]
    sent: list[str] = []

    def decided(route: Route) -> None:
        number = route.request.url.split("/jobs/")[1][0]
        sent.append(f"{route.request.method} {route.request.url.split('/api')[1]}")
        jobs[:] = [job for job in jobs if job["id"] != number]
        route.fulfill(status=204)

    page.route("**/api/documents", lambda route: route.fulfill(body=json.dumps({"documents": [], "jobs": jobs})))
    page.route("**/api/jobs/**", decided)
    page.reload()
    rows = page.locator("#uploads > li")
    expect(rows).to_have_count(2)
    expect(page.get_by_role("button", name="Dismiss all")).to_be_hidden()  # these come back
    rows.nth(0).get_by_role("button", name="Try again").click()
    expect(rows).to_have_count(1)
    rows.nth(0).get_by_role("button", name="Remove 2.pdf").click()
    expect(page.locator("#uploads")).to_be_hidden()
    assert sent == ["POST /jobs/1/retry", "DELETE /jobs/2"]


def test_an_empty_page_offers_to_add_files_on_a_phone_too(empty: Site, visit: Visits) -> None:
    page = visit(empty, viewport={"width": 390, "height": 800}, has_touch=True)
    page.get_by_role("textbox", name="Key").fill(KEY)
    page.get_by_role("textbox", name="Key").press("Enter")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Add files").click()
    chosen.value.set_files({"name": "large.txt", "mimeType": "text/plain", "buffer": b"word " * 300_000})
    expect(page.locator(".job.failed")).to_be_visible()  # the pane that shows how it goes is the one shown


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(empty: Site, visit: Visits, tmp_path: Path) -> None:
    page = visit(empty)
    key = page.get_by_role("textbox", name="Key")
    expect(key).to_be_visible()
    assert key.get_attribute("type") == "password"
    key.fill("a wrong key")
    key.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("refused the key")
    key.fill(KEY)
    key.press("Enter")
    expect(page.get_by_role("heading", name="Begin with a document")).to_be_visible()
    expect(page.get_by_text("Drop files here")).to_be_visible()
    assert page.evaluate("JSON.stringify(localStorage)").count(KEY) == 0
    # What is too large is refused before it is sent, in words.
    large = tmp_path / "large.txt"
    large.write_bytes(b"word " * 300_000)
    page.get_by_label("Files to add").set_input_files(large)
    expect(page.locator(".job.failed")).to_contain_text("larger than 1 MB")


def test_a_server_that_is_gone_is_said_with_the_remedy(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_label("Files to add").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
    expect(page.locator(".job.failed")).to_contain_text("Look whether the server still runs")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.get_by_role("button", name="Choose files")).to_be_focused()
    page.get_by_label("Question", exact=True).fill("Do ducks swim?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".turn .error")).to_contain_text("The server cannot be reached.Look whether")
    page.unroute("**/api/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#announce")).to_have_text("a.txt was added.")
    expect(page.locator("#uploads")).to_be_hidden()
    page.get_by_role("button", name="Delete a.txt").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("button", name="Delete a.txt")).to_have_count(0)


def test_a_document_that_is_deleted_is_no_longer_shown(writing: Site, visit: Visits, tmp_path: Path) -> None:
    text = tmp_path / "geese.txt"
    text.write_text("Geese fly south.\n")
    page = visit(writing)
    ready(page)
    page.get_by_label("Files to add").set_input_files([text])
    page.get_by_role("button", name="geese.txt 1 passage").click()
    shown = page.locator("#source .text")
    expect(shown).to_contain_text("Geese fly south.")
    text.write_text("Geese fly north.\n")
    page.get_by_label("Files to add").set_input_files([text])
    expect(shown).to_have_text("Geese fly north.")  # not what it said before
    assert shown.evaluate("box => getComputedStyle(box).unicodeBidi") == "plaintext"  # a direction for each line
    page.get_by_role("button", name="Delete geese.txt").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(shown).to_have_count(0)
    expect(page.get_by_role("button", name="Choose files")).to_be_focused()


def test_a_passage_of_a_document_that_has_changed_is_not_marked(writing: Site, visit: Visits, tmp_path: Path) -> None:
    writing.script["geese"] = Reply("Geese fly south [1].")
    text = tmp_path / "geese.txt"
    text.write_text("Geese fly south in autumn.\n")
    page = visit(writing)
    ready(page)
    page.get_by_label("Files to add").set_input_files([text])
    expect(page.get_by_role("button", name="geese.txt 1 passage")).to_be_visible()
    ask(page, "Where do geese fly?")
    cited = page.locator(".turn button.cite")
    cited.click()
    expect(page.locator("#source mark")).to_have_text("Geese fly south in autumn.")
    expect(page.get_by_role("alert")).to_be_hidden()
    text.write_text("In spring they are back. Geese fly south in autumn.\n")
    page.get_by_label("Files to add").set_input_files([text])
    expect(page.locator("#uploads > li")).to_have_count(0)
    cited.click()
    expect(page.locator("#source .text")).to_contain_text("In spring")
    expect(page.locator("#source mark")).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text("may have changed since")
    page.get_by_role("button", name="Delete geese.txt").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("button", name="geese.txt 1 passage")).to_have_count(0)


def test_rows_that_stay_keep_the_focus(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)

    def job(name: str, **more: object) -> dict[str, object]:
        return {"id": name, "name": name, "state": "failed", "message": f"{name} is bad", "done": 0, "total": 0, **more}

    def document(name: str) -> dict[str, object]:
        return {"id": name, "title": name, "chunks": 1, "pages": 0, "has_image": False}

    listed: dict[str, list[dict[str, object]]] = {
        "documents": [document("b"), document("c")],
        "jobs": [job("1"), job("2"), job("3", state="encoding")],
    }
    page.route("**/api/documents", lambda route: route.fulfill(body=json.dumps(listed)))

    def look() -> None:
        with page.expect_response("**/api/documents"):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    page.reload()
    dismiss = page.get_by_role("button", name="Dismiss 2")
    dismiss.focus()
    listed["jobs"] = [job("0"), job("2"), job("3")]
    look()
    expect(page.get_by_role("button", name="Dismiss 0")).to_be_visible()
    expect(dismiss).to_be_focused()
    expect(page.locator("#announce")).to_have_text("3: Not added. is bad")  # its name once
    row = page.locator("#document-list").get_by_role("button", name="c 1 passage")
    row.focus()
    listed["documents"] = [document("c"), document("a"), document("b")]
    look()
    expect(page.locator("#document-list > li")).to_have_count(3)
    expect(row).to_be_focused()
    assert page.locator("#document-list .name").all_text_contents() == ["c", "a", "b"]
    listed["documents"] = [document("a"), document("b")]  # deleted elsewhere
    look()
    expect(page.locator("#document-list").get_by_role("button", name="a 1 passage")).to_be_focused()


def test_a_page_that_still_sends_files_asks_before_it_is_left(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    page.get_by_label("Question", exact=True).click()  # browsers listen to a page that was used
    page.route("**/api/documents", lambda route: None if route.request.method == "POST" else route.continue_())
    page.get_by_label("Files to add").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
    expect(page.locator(".job.sending")).to_be_visible()
    with page.expect_event("dialog") as asked:
        page.evaluate("void setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    expect(page.locator(".job.sending")).to_be_visible()


def test_a_key_that_is_given_later_connects_the_page(empty: Site, visit: Visits) -> None:
    page = visit(empty)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Not connected")
    page.evaluate("fetch('api/documents').then((answer) => answer.text())")  # as long as another question would take
    expect(page.get_by_role("dialog")).to_be_hidden()
    ask(page, "Do ducks swim?")
    page.get_by_role("textbox", name="Key").fill(KEY)
    page.get_by_role("textbox", name="Key").press("Enter")
    expect(page.locator("#status")).to_contain_text("Model")
    assert page.locator("#mode option").count() > 1
