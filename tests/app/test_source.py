"""From an answer to the place it stands at: boxes on the page, marks in the text, words that matched."""

from __future__ import annotations

import json

import httpx
import pytest

from .conftest import Visits
from .sites import Site, ask, expect, highlight, ready

QUESTION = "What do ducks eat?"


def test_a_citation_opens_the_page_with_the_passage_boxed(quoting: Site, visit: Visits) -> None:
    page = visit(quoting)
    ready(page)
    with page.expect_response("**/api/page/rectangles*") as answered:
        ask(page, QUESTION)
        page.locator(".turn button.cite").first.click()
    said = answered.value
    expect(page.locator("#source-title")).to_be_focused()
    expect(page.locator("#source canvas")).to_have_accessible_name("Page 2 of The garden handbook")
    boxes = page.locator("#source .box")
    expect(boxes.first).to_be_in_viewport()
    rectangles = said.json()["rectangles"]
    assert rectangles
    expect(boxes).to_have_count(len(rectangles))
    sheet = page.locator("#source canvas").bounding_box()
    for i, (x0, y0, x1, y1) in enumerate(rectangles):
        box = boxes.nth(i).bounding_box()
        expected = [sheet["x"] + x0 * sheet["width"], sheet["y"] + y0 * sheet["height"]]
        expected += [(x1 - x0) * sheet["width"] + 4, (y1 - y0) * sheet["height"] + 4]  # and the border
        found = [box["x"] + 2, box["y"] + 2, box["width"], box["height"]]
        assert found == pytest.approx(expected, abs=1.5)
    # What is drawn under the box is ink, not an empty place of the page.
    dark = page.evaluate(
        """([x0, y0, x1, y1]) => {
            const sheet = document.querySelector("#source canvas"), w = sheet.width, h = sheet.height;
            const area = [x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h];
            const data = sheet.getContext("2d").getImageData(...area).data;
            return [...data].filter((value, i) => i % 4 === 0 && value < 100).length;
        }""",
        rectangles[0],
    )
    assert dark > 20
    page.get_by_role("button", name="Larger").click()
    expect(page.get_by_role("button", name="Larger")).to_be_focused()
    expect(page.locator(".sheet.large .box").first).to_be_in_viewport()
    assert page.locator("#source canvas").bounding_box()["width"] == pytest.approx(2 * sheet["width"], abs=40)
    page.get_by_role("button", name="Larger").click()
    page.get_by_role("button", name="Page before").click()
    expect(page.locator("#source canvas")).to_have_accessible_name("Page 1 of The garden handbook")
    expect(boxes).to_have_count(0)
    expect(page.locator("#source-title")).to_be_focused()  # the button is of no use any more: no page before
    page.get_by_role("button", name="Show the text").click()
    expect(page.locator("#source mark")).to_contain_text("pond weed, snails")
    expect(page.locator("#source mark")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.locator("#source mark")).to_have_count(0)
    expect(page.locator(".turn button.cite").first).to_be_focused()


def test_every_hit_shows_its_scores_and_the_words_that_matched(quoting: Site, visit: Visits) -> None:
    page = visit(quoting)
    ready(page)
    ask(page, QUESTION)
    expect(page.locator(".tools")).to_be_visible()
    summary = page.locator(".considered summary")
    summary.click()
    hits = httpx.post(f"{quoting.url}api/search", json={"query": QUESTION, "k": 5}, timeout=30).json()["hits"]
    first = page.locator(".hits > li").first
    bars = first.locator("dd")
    expect(bars).to_have_count(3)
    for i, leg in enumerate(("dense", "lexical", "colbert")):
        expect(bars.nth(i)).to_contain_text(f"{hits[0]['scores'][leg]:.3f}")
        track, fill = bars.nth(i).locator(".track").bounding_box(), bars.nth(i).locator(".fill").bounding_box()
        part = 1.0 if leg == "lexical" else hits[0]["scores"][leg]  # of the best hit, or of 1
        assert fill["width"] / track["width"] == pytest.approx(part, abs=0.02)
    for label, leg in (("words (lexical)", "lexical"), ("word by word (ColBERT)", "colbert")):
        highlight(page, label)
        answer = httpx.post(
            f"{quoting.url}api/highlights", json={"query": QUESTION, "chunk_id": hits[0]["chunk_id"]}, timeout=30
        ).json()
        words = [hits[0]["text"][start:end] for start, end, _ in answer[leg]]
        assert words
        marks = first.locator(".passage mark")
        expect(marks).to_have_text(words)
        strengths = [f"match strength-{strength}" for *_, strength in answer[leg]]
        assert [marks.nth(i).get_attribute("class") for i in range(len(words))] == strengths
        lines = marks.evaluate_all("all => all.map(e => getComputedStyle(e).textDecorationLine)")
        assert set(lines) == {"underline"}
    highlight(page, "off")
    expect(first.locator("mark")).to_have_count(0)
    expect(first.locator(".passage")).to_have_text(hits[0]["text"], use_inner_text=False)


def test_the_three_strengths_differ_without_colour(quoting: Site, visit: Visits) -> None:
    page = visit(quoting)
    ready(page)
    looks = page.evaluate(
        """[1, 2, 3].map((n) => {
            const mark = document.body.appendChild(document.createElement("mark"));
            mark.className = `match strength-${n}`;
            const style = getComputedStyle(mark);
            const look = [style.textDecorationStyle, style.textDecorationThickness].join(" ");
            mark.remove();
            return look;
        })"""
    )
    assert len(set(looks)) == 3


def test_keyboard_alone_leads_to_an_opened_citation(quoting: Site, visit: Visits) -> None:
    page = visit(quoting)
    ready(page)
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "skip":
            break
    expect(page.get_by_text("Skip to the question")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    page.keyboard.type("What do ducks")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("eat?")
    expect(page.get_by_label("Question", exact=True)).to_have_value("What do ducks\neat?")
    page.keyboard.press("Enter")
    expect(page.locator(".tools")).to_be_visible()
    for _ in range(20):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.className") == "cite":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("#source .box").first).to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Page before")).to_be_focused()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "cite"


def test_a_document_opens_from_the_list(quoting: Site, visit: Visits) -> None:
    page = visit(quoting)
    ready(page)
    page.locator("#document-list").get_by_role("button", name="The garden handbook").first.click()
    expect(page.locator("#source canvas")).to_have_accessible_name("Page 1 of The garden handbook")
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("#source canvas")).to_have_accessible_name("Page 2 of The garden handbook")
    page.get_by_role("button", name="Close the source").click()
    expect(page.locator("#source canvas")).to_have_count(0)
    expect(page.locator("#document-list").get_by_role("button", name="The garden handbook").first).to_be_focused()


def test_a_page_that_is_turned_is_announced(quoting: Site, visit: Visits) -> None:
    page = visit(quoting)
    ready(page)
    page.locator("#document-list").get_by_role("button", name="The garden handbook").first.click()
    expect(page.locator("#source canvas")).to_be_visible()
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("#announce")).to_have_text("Page 2 of 2.")


def test_a_long_text_is_read_from_its_beginning_to_its_end(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    text = f"{'early 🦆 ' * 9_000}HERE{' later' * 12_000}"
    found = {"document_id": "ducks.txt", "title": "Long", "text": text, "pages": [], "is_pdf": False}
    page.route("**/api/source*", lambda route: route.fulfill(body=json.dumps(found)))
    at = text.index("HERE")
    page.evaluate(
        "async (place) => (await import('/static/js/source.js')).open(place, document.body)",
        {"document_id": "ducks.txt", "start": at, "end": at + 4},
    )
    mark = page.locator("#source mark")
    expect(mark).to_be_in_viewport()
    before, after = (page.get_by_role("button", name=name) for name in ("the text before", "Show more of the text"))
    for button in (before, after):
        while button.is_visible():
            length = page.locator("#source .text").evaluate("e => e.textContent.length")
            button.press("Enter")
            assert page.locator("#source .text").evaluate("e => e.textContent.length") > length
            assert page.evaluate("document.getElementById('source-body').contains(document.activeElement)")
    assert page.locator("#source .text").text_content() == text
    expect(mark).to_have_text("HERE")


def test_back_closes_the_source_on_a_phone(writing: Site, visit: Visits) -> None:
    page = visit(writing, viewport={"width": 390, "height": 844})
    ask(page, QUESTION)
    cite = page.locator(".turn button.cite")
    for close in (
        page.go_back,
        page.get_by_role("button", name="Close the source").click,
        page.get_by_role("navigation", name="Panes").get_by_role("button", name="Conversation").click,
    ):
        cite.click()
        expect(page.locator("#source mark")).to_be_visible()
        close()
        expect(cite).to_be_visible()
        assert page.url == writing.url
    cite.click()
    expect(page.locator("#source mark")).to_be_visible()
    page.reload()
    expect(cite).to_be_visible()
    page.go_back()  # and no entry is left: it leads out
    expect(page).not_to_have_url(writing.url)
