"""What begins with a slash in `m3rag chat`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from m3rag.cli.answers import numbered, where
from m3rag.cli.console import counted, one_line, place
from m3rag.cli.options import parse_filters
from m3rag.cli.search import leg_score, top_words

if TYPE_CHECKING:
    from m3rag.cli.chat_session import Session
    from m3rag.types import Hit

HELP = """\
Ask in a line. A question may lean on those before it, if a language model answers.
/sources           the passages behind the last answer
/why N             why passage N was found: the score of each leg, and the words that matched
/mode [MODE]       which legs a search looks at: dense, lexical, colbert, dense+lexical, all, ...
/filter KEY=VALUE  look only at chunks whose metadata have it; several may be given; /filter clear
/clear             forget the conversation
/save FILE         write the conversation as Markdown
/quit              leave; so does Ctrl-D. Ctrl-C stops an answer"""

WORDS = 8
"""Words shown of a leg."""


def obey(session: Session, line: str) -> bool:
    """Do what a line says; False ends the conversation.

    Raises:
        InputError: If there is no such command, or it is given what it cannot use.
        ConfigurationError: If there is no such mode.
    """
    from m3rag.errors import InputError

    name, _, rest = line[1:].partition(" ")
    commands: dict[str, Callable[[Session, str], None]] = {
        "help": lambda session, _rest: session.tell(HELP),
        "sources": _sources,
        "why": _why,
        "mode": _mode,
        "filter": _filter,
        "clear": _clear,
        "save": _save,
    }
    if name in ("quit", "exit"):
        return False
    if name not in commands:
        near = get_close_matches(name, [*commands, "quit"], n=1)
        meant = f"did you mean /{near[0]}?" if near else "/help shows what there is"
        raise InputError(f"there is no command /{name}: {meant} (a question that begins with / needs a blank first)")
    commands[name](session, rest.strip())
    return True


def _sources(session: Session, _rest: str) -> None:
    answer = session.answer()
    cited = len(answer.citations)
    for number, hit in enumerate(numbered(answer), 1):
        mark = where(answer.citations[number - 1]) if number <= cited else place(hit.chunk.document_id, hit.chunk.page)
        session.tell(f"[{number}] {mark}" + ("" if number <= cited else "  (not cited)"))
        session.tell(f"    {one_line(hit.chunk.text, 110)}")
    if not answer.hits:
        session.tell("no passage was found")


def _why(session: Session, rest: str) -> None:
    from m3rag.errors import InputError

    hits = numbered(session.answer())
    if not rest.isdecimal() or not 1 <= int(rest) <= len(hits):
        raise InputError(f"/why takes the number of a passage, 1 to {len(hits)}: /sources shows them")
    hit = hits[int(rest) - 1]
    session.tell(f"[{int(rest)}] {place(hit.chunk.document_id, hit.chunk.page)}  score {hit.score:.3f}")
    session.tell(f"    dense    {leg_score(hit, 'dense')}")
    session.tell(f"    lexical  {leg_score(hit, 'lexical')}  {_matched(session, hit)}".rstrip())
    session.tell(f"    colbert  {leg_score(hit, 'colbert')}  {_aligned(session, hit)}".rstrip())


def _matched(session: Session, hit: Hit) -> str:
    from m3rag.retrieval.words import matched_words

    found = matched_words(session.kb.encoder, session.searched, hit, store=session.kb.store)
    return ", ".join(f"{name} {contribution:.3f}" for name, contribution in top_words(found, WORDS).items())


def _aligned(session: Session, hit: Hit) -> str:
    from m3rag.retrieval.words import aligned_words

    found = sorted(aligned_words(session.kb.encoder, session.searched, hit), key=lambda word: -word.strength)
    pairs = dict.fromkeys(f"{' '.join(word.query)} -> {word.text}" for word in found)
    return ", ".join(list(pairs)[:WORDS])


def _mode(session: Session, rest: str) -> None:
    from m3rag.retrieval import Mode

    if rest:
        mode = Mode.parse(rest)
        mode.check(session.kb.encoder.info)
        session.mode = mode.value
    session.tell(f"mode {session.mode}")


def _filter(session: Session, rest: str) -> None:
    import typer

    from m3rag.errors import InputError

    if rest == "clear":
        session.filters = []
    elif rest:
        try:
            given = shlex.split(rest)
            parse_filters(given)
        except (typer.BadParameter, ValueError) as error:
            told = getattr(error, "message", error)
            raise InputError(f"{told}: write /filter KEY=VALUE, or /filter clear") from None
        session.filters = given
    session.tell(f"filter {' '.join(session.filters) or 'none'}")


def _clear(session: Session, _rest: str) -> None:
    session.clear()
    session.tell("the conversation is forgotten")


def _save(session: Session, rest: str) -> None:
    from m3rag.errors import InputError

    if not rest:
        raise InputError("/save takes the name of a new file, such as /save talk.md")
    file = Path(rest).expanduser()
    try:
        with file.open("x", encoding="utf-8", errors="backslashreplace") as target:
            target.write(session.transcript())
    except FileExistsError:
        raise InputError(f"{file} is there already: give another name") from None
    except (OSError, ValueError) as error:  # a ValueError is a name that the system cannot have
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{file} could not be written ({why}): give another name") from None
    session.tell(f"saved {counted(len(session.asked), 'answer')} to {file}")
