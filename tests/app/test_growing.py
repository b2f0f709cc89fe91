"""An answer that is being written leaves the rest of the page, and whoever uses it, in peace."""

from __future__ import annotations

import json

from m3rag.testing.llm_server import Reply

from .conftest import Visits
from .sites import Site, ask, expect, highlight, ready

SLOWLY = "very " * 60


def test_a_fast_answer_is_drawn_once_a_frame(writing: Site, visit: Visits) -> None:
    writing.script["long?"] = Reply("Ducks eat grass [1]. " * 600)
    page = visit(writing)
    ready(page)
    page.evaluate(
        """() => {
            window.seen = {frames: 0, draws: 0};
            const frame = () => requestAnimationFrame(() => (seen.frames++, frame()));
            frame();
            new MutationObserver((all) => (seen.draws += all.some(({target}) => target.closest?.(".answer")
                ?? target.parentElement?.closest(".answer")))).observe(
                document.getElementById("turns"), {subtree: true, childList: true, characterData: true});
        }"""
    )
    ask(page, "Is it long?")
    expect(page.locator(".turn .tools")).to_be_visible()
    expect(page.locator(".turn button.cite")).to_have_count(600)
    seen = page.evaluate("seen")
    assert 1 <= seen["draws"] <= seen["frames"] + 3  # and the first, and the last


def test_what_is_marked_in_an_answer_stays_marked_as_it_grows(writing: Site, visit: Visits) -> None:
    writing.script["growing?"] = Reply(f"Ducks **eat** grass [1].\n\n- one `x`\n\nThey sleep {SLOWLY}[1].", pause=0.03)
    page = visit(writing)
    ready(page)
    ask(page, "Is it growing?")
    expect(page.locator(".answer")).to_contain_text("They sleep very very")
    page.evaluate(
        """() => {
            window.kept = [...document.querySelectorAll(".answer > *")];
            const [first, last] = [kept[0].firstChild, kept.at(-1).lastChild];
            getSelection().setBaseAndExtent(first, 2, last, "They sleep very".length);
        }"""
    )
    expect(page.locator(".turn .tools")).to_be_visible()
    assert page.evaluate("kept.map((block) => block.isConnected)") == [True, True, True]
    assert page.evaluate("getSelection().toString()").startswith("cks eat grass")
    assert page.evaluate("getSelection().toString()").endswith("They sleep very")
    assert page.locator(".answer > *").all_text_contents() == ["Ducks eat grass 1.", "one x", f"They sleep {SLOWLY}1."]


def test_what_was_opened_chosen_and_focused_meanwhile_stays_so(writing: Site, visit: Visits) -> None:
    writing.script["slow?"] = Reply(f"Ducks eat {SLOWLY}slowly [1].", pause=0.03)
    page = visit(writing)
    ready(page)
    ask(page, "Is it slow?")
    summary = page.locator(".considered summary")
    summary.click()
    highlight(page, "words (lexical)")
    summary.focus()
    expect(page.locator(".turn .tools")).to_be_visible()
    expect(summary).to_be_focused()
    expect(page.locator(".considered")).to_have_attribute("open", "")
    expect(page.get_by_role("radio", name="words (lexical)")).to_be_checked()
    expect(page.locator(".hits .cited", has_text="cited as [1]")).to_have_count(1)
    # And of the list of conversations, which moves up the one that was just written.
    ask(page, "Is it still slow?")
    row = page.locator("#saved-list .row")
    row.focus()
    expect(page.locator(".turn .tools")).to_have_count(2)
    expect(row).to_be_focused()


def test_a_page_left_while_an_answer_comes_keeps_what_has_come(writing: Site, visit: Visits) -> None:
    writing.script["slow?"] = Reply("Ducks eat " + "very " * 400 + "slowly [1].", pause=0.05)
    page = visit(writing)
    ready(page)
    ask(page, "Is it slow?")
    expect(page.locator(".turn .answer")).to_contain_text("very very")
    page.reload()
    expect(page.locator(".turn").get_by_text("Stopped.")).to_be_visible()
    expect(page.locator(".turn .answer")).to_contain_text("very very")
    expect(page.locator(".turn .error")).to_have_count(0)


def test_a_whole_answer_stays_whole_though_its_connection_goes_on(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    page.evaluate(
        """() => {
            const [real, done] = [fetch, 'event: done\\ndata: {"id": "1", "text": "42.", "answered": true}\\n\\n'];
            const begun = (signal) => ({start: (stream) => {
                stream.enqueue(new TextEncoder().encode(done));
                signal.addEventListener("abort", () => stream.error(signal.reason));
            }});
            window.fetch = (url, options) => (String(url).endsWith("/ask")
                ? Promise.resolve(new Response(new ReadableStream(begun(options.signal)))) : real(url, options));
        }"""
    )
    for n, end in enumerate((page.get_by_role("button", name="Stop").click, page.reload), start=1):
        ask(page, "Is it whole?")
        expect(page.locator(".turn .answer", has_text="42.")).to_have_count(n)
        end()
    expect(page.locator(".turn .tools")).to_have_count(2)
    expect(page.locator(".turn").get_by_text("Stopped.")).to_have_count(0)


def test_a_touched_screen_is_not_covered_by_a_keyboard_at_the_end(writing: Site, visit: Visits) -> None:
    page = visit(writing, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.get_by_label("Question", exact=True).fill("What do ducks eat?")
    page.get_by_role("button", name="Ask", exact=True).tap()
    expect(page.locator(".turn .tools")).to_be_visible()
    assert page.evaluate("document.activeElement.id") != "question"
    area = page.locator("button.cite").evaluate(
        "b => ['width', 'height'].map((side) => parseFloat(getComputedStyle(b, '::after')[side]))"
    )
    assert min(area) >= 24  # WCAG 2.2, 2.5.8


def test_a_question_that_is_too_long_stays_in_its_box(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    ask(page, "🦆" * 10_001)
    expect(page.get_by_role("alert")).to_contain_text("The question has more than 10,000 characters.")
    expect(page.get_by_label("Question", exact=True)).to_have_value("🦆" * 10_001)
    expect(page.locator(".turn")).to_have_count(0)
    # A title is cut between the characters that people see.
    family = "👩\u200d👩\u200d👧"
    ask(page, f"{'a' * 79}{family}{family}")
    expect(page.locator("#saved-list .name")).to_have_text(f"{'a' * 79}{family}")


def test_a_comment_is_left_by_escape_and_gives_the_focus_back(writing: Site, visit: Visits) -> None:
    page = visit(writing)
    ready(page)
    ask(page, "What do ducks eat?")
    page.locator(".turn button.cite").click()
    expect(page.locator("#source mark")).to_be_visible()
    page.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', isComposing: true}))")
    expect(page.locator("#source mark")).to_be_visible()
    down = page.get_by_role("button", name="A bad answer")
    down.click()
    page.get_by_label("What was wrong?").press("Escape")
    expect(page.get_by_label("What was wrong?")).to_have_count(0)
    expect(down).to_be_focused()
    expect(page.locator("#source mark")).to_be_visible()
    down.click()
    page.get_by_label("What was wrong?").press("Enter")
    expect(down).to_have_attribute("aria-pressed", "true")
    expect(down).to_be_focused()


def test_advice_is_given_once(writing: Site, visit: Visits) -> None:
    writing.script["nothing?"] = Reply("")
    page = visit(writing)
    ready(page)
    ask(page, "Is it nothing?")
    expect(page.locator(".turn .error")).to_be_visible()
    said = " ".join(page.locator(".turn .error p").all_text_contents()).lower()
    assert said.count("ask again") == 1


def test_passages_are_shown_whole_where_they_are_cut(writing: Site, visit: Visits) -> None:
    page = visit(writing, viewport={"width": 390, "height": 844})
    hits = [
        {"chunk_id": str(n), "document_id": "ducks.txt", "text": text, "scores": {}, "start": 0, "end": len(text)}
        for n, text in enumerate(("Ducks swim. " * 30, "Ducks."))
    ]
    told = [("sources", {"hits": hits, "question": "Ducks?"}), ("done", {"id": "1", "text": "Yes.", "answered": True})]
    stream = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in told)
    page.route("**/api/ask", lambda route: route.fulfill(body=stream, content_type="text/event-stream"))
    ask(page, "Ducks?")
    page.locator(".considered summary").click()
    whole = page.locator(".hits").get_by_role("button", name="Show all of it")
    expect(whole).to_have_count(1)  # of the two
    whole.click()
    assert page.locator(".passage").first.evaluate("p => p.scrollHeight <= p.clientHeight")
    page.get_by_role("button", name="Show less").click()
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.locator(".hits > li").nth(1).get_by_role("button", name="Show")).to_have_count(0)
