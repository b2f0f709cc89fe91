"""Light, dark, narrow; and what axe, the accessibility checker, says of the main states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from m3rag.testing.llm_server import Reply

from .conftest import Visits
from .sites import Site, ask, expect, highlight, ready

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")


def violations(page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html']} {node['any'][0]['message'] if node['any'] else ''}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(quoting: Site, visit: Visits, colours: str, tmp_path: Path) -> None:
    page = visit(quoting, color_scheme=colours, reduced_motion="reduce")
    ready(page)
    assert violations(page) == []
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing more")
    page.get_by_label("Files to add").set_input_files(broken)
    expect(page.locator(".job.failed")).to_be_visible()
    ask(page, "What do ducks eat?")
    page.locator(".turn button.cite").first.click()
    expect(page.locator("#source .box").first).to_be_visible()
    page.locator(".considered summary").click()
    highlight(page, "words (lexical)")
    expect(page.locator(".hits mark").first).to_be_visible()
    page.locator("#options summary").click()
    page.get_by_label("Weights").select_option("own")
    assert violations(page) == []
    page.get_by_role("button", name="Show the text").click()
    expect(page.locator("#source mark")).to_be_visible()
    page.get_by_role("button", name="Delete The garden handbook").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    # The server is other tests', too, and shows what failed to all who come.
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Dismiss broken.pdf").click()
    expect(page.locator(".job.failed")).to_have_count(0)


def test_the_colours_are_chosen_and_kept(writing: Site, visit: Visits) -> None:
    page = visit(writing, color_scheme="light")
    ready(page)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    switch = page.get_by_role("button", name="Dark colours")
    expect(switch).to_have_attribute("aria-pressed", "false")
    switch.click()
    expect(switch).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_a_narrow_screen_shows_one_pane_at_a_time(quoting: Site, visit: Visits) -> None:
    page = visit(quoting, viewport={"width": 375, "height": 700}, has_touch=True)
    tabs = page.get_by_role("navigation", name="Panes")
    expect(page.get_by_label("Question", exact=True)).to_be_in_viewport()
    expect(page.get_by_role("button", name="Choose files")).to_be_hidden()
    ask(page, "What do ducks eat?")
    page.locator(".turn button.cite").first.click()
    expect(page.locator("#source .box").first).to_be_in_viewport()
    expect(tabs.get_by_role("button", name="Source")).to_have_attribute("aria-current", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".turn button.cite").first).to_be_focused()
    tabs.get_by_role("button", name="Documents").click()
    expect(page.get_by_role("button", name="Choose files")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


def test_the_narrowest_screens_need_no_scrolling_sideways(quoting: Site, visit: Visits) -> None:
    page = visit(quoting, viewport={"width": 320, "height": 500})  # WCAG 2.2, 1.4.10: 1280 px at 400 %
    expect(page.get_by_role("heading", name="Ask about")).to_be_visible()
    for pane in ("Documents", "Conversation", "Source"):
        page.get_by_role("navigation", name="Panes").get_by_role("button", name=pane).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [760, 801, 840, 880, 881, 1000])
def test_no_pane_runs_off_the_screen(writing: Site, visit: Visits, width: int) -> None:
    page = visit(writing, viewport={"width": width, "height": 700})
    ready(page) if width > 880 else expect(page.get_by_role("navigation", name="Panes")).to_be_visible()
    edges = page.evaluate("[...document.querySelectorAll('.pane')].map((pane) => pane.getBoundingClientRect().right)")
    assert max(edges) <= width


def test_the_size_of_letters_that_the_browser_is_set_to_is_kept(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    expect(page.get_by_role("navigation", name="Panes")).to_be_hidden()
    session = page.context.new_cdp_session(page)
    session.send("Page.setFontSizes", {"fontSizes": {"standard": 24}})
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).fontSize") == "24px"
    expect(page.get_by_role("navigation", name="Panes")).to_be_visible()  # the panes grow too: no room for three


def test_the_whole_conversation_is_printed_and_nothing_else(writing: Site, visit: Visits) -> None:
    writing.script["long?"] = Reply("Ducks eat grass [1].\n" * 80)
    page = visit(writing, color_scheme="dark")
    ready(page)
    ask(page, "Is it long?")
    expect(page.locator(".turn .tools")).to_be_visible()
    page.emulate_media(media="print", color_scheme="dark")
    for left_out in ("#documents", "#source", "#composer", ".top", ".turn .tools"):
        expect(page.locator(left_out)).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollHeight >= document.querySelector('.answer').scrollHeight")
    assert page.locator("#turns").evaluate("box => box.scrollHeight <= box.clientHeight")
    assert page.evaluate("getComputedStyle(document.querySelector('.answer')).color") == "rgb(32, 33, 31)"


def test_bars_are_seen_in_forced_colours_and_hints_in_the_dark(writing: Site, visit: Visits) -> None:
    page = visit(writing, forced_colors="active")
    ready(page)
    ask(page, "What do ducks eat?")
    page.locator(".considered summary").click()
    colour = "e => getComputedStyle(e).backgroundColor"
    assert page.locator(".fill").first.evaluate(colour) != page.locator(".track").first.evaluate(colour)
    chosen, other = page.locator(".choice :checked + span"), page.locator(".choice :not(:checked) + span").first
    assert chosen.evaluate(colour) != other.evaluate(colour)
    page.emulate_media(forced_colors="none", color_scheme="dark")
    hint = page.locator("#question").evaluate("box => getComputedStyle(box, '::placeholder').color")
    assert hint == page.locator(".hint").evaluate("e => getComputedStyle(e).color")


def test_items_from_the_right_have_their_markers_inside(writing: Site, visit: Visits) -> None:
    writing.script["list?"] = Reply("- العشب\n- Fish\n\n1. أولا\n2. two")
    page = visit(writing)
    ready(page)
    ask(page, "Is it a list?")
    expect(page.locator(".turn .tools")).to_be_visible()
    room = page.locator(".answer li").evaluate_all(
        """all => all.map((item) => {
            const [own, list] = [item, item.parentElement].map((e) => e.getBoundingClientRect());
            return getComputedStyle(item).direction === "rtl" ? list.right - own.right : own.left - list.left;
        })"""
    )
    assert min(room) >= 24


def test_a_notice_covers_nothing_and_can_be_closed(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    page.clock.install()
    job = {"id": "1", "name": "a.pdf", "state": "queued", "done": 0, "total": 0, "message": "", "document_id": None}
    listed = json.dumps({"documents": [], "jobs": [job]})
    page.route("**/api/documents", lambda route: route.fulfill(body=listed))
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(look)
    expect(page.locator(".job")).to_be_visible()
    page.unroute("**/api/documents")
    page.route("**/api/documents", lambda route: route.abort())
    page.clock.run_for(600)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    notice = page.locator("#notice")
    end, beginning = page.evaluate(
        """() => [document.getElementById("notice"), document.querySelector("main")]
            .map((e) => e.getBoundingClientRect()).map(({top, bottom}, i) => (i ? top : bottom))"""
    )
    assert end <= beginning
    colour, ground = alert.locator("code").evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).background]")
    assert colour == notice.evaluate("box => getComputedStyle(box).color")
    assert not ground.startswith(notice.evaluate("box => getComputedStyle(box).color"))
    page.get_by_label("Question", exact=True).focus()
    page.get_by_role("button", name="Close this message").click()
    expect(notice).to_be_hidden()
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    for _ in range(2):  # it looks again, and does not complain again
        with page.expect_request("**/api/documents"):
            page.clock.run_for(11_000)
    expect(notice).to_be_hidden()
    # It waits for who points at it.
    ask(page, "x" * 10_001)
    expect(alert).to_contain_text("10,000")
    alert.hover()
    page.clock.run_for(11_000)
    expect(notice).to_be_visible()
    page.mouse.move(600, 700)
    page.clock.run_for(11_000)
    expect(notice).to_be_hidden()
