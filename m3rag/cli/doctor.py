"""`m3rag doctor`: what is wrong, and the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, counted, note, print_json, printable, say
from m3rag.cli.options import Debug, Index, Json, Model

if TYPE_CHECKING:
    from m3rag.doctor import Check, Severity

COLOURS: dict[Severity, str] = {"ok": "green", "info": "blue", "warning": "yellow", "error": "red"}
NAMES = 18
"""Signs that the names of checks have room in."""


@command(tells_variables=False)
def doctor(index: Index = None, model: Model = None, as_json: Json = False, debug: Debug = False) -> None:
    """Look for what is wrong here, and say what mends it.

    Settings, model, index, language model, machine and extras are looked at. Nothing is changed, and
    nothing is sent anywhere but to the servers that your settings name.
    """
    from m3rag.doctor import diagnose

    checks = []
    for check in diagnose(index=index, model=model):
        checks.append(check)
        if not as_json:
            print_check(check)
    problems = sum(check.is_problem for check in checks)
    if as_json:
        print_json("doctor", {"healthy": not problems, "checks": [asdict(check) for check in checks]})
    else:
        note(f"{counted(problems, 'problem')} found" if problems else "nothing is wrong")
    if problems:
        raise typer.Exit(FOUND_PROBLEMS)


def print_check(check: Check) -> None:
    """A line for what was found, and one for what mends it."""
    severity = f"{check.severity:<8}"
    if not os.environ.get("NO_COLOR"):
        severity = typer.style(severity, fg=COLOURS[check.severity], bold=check.is_problem)
    lines = [part for line in printable(check.message).splitlines() for part in _fitted(line)] or [""]
    if len(check.name) > NAMES:
        lines.insert(0, "")
    typer.echo(f"{severity} {check.name:<{NAMES}} {lines[0]}".rstrip())
    for line in lines[1:]:
        say(f"{'':<{NAMES + 9}} {line}")
    if check.remedy is not None:
        say(f"{'':<{NAMES + 9}} -> {check.remedy}")  # whole: it is there to be copied


def _fitted(line: str) -> list[str]:
    """A line in pieces that a terminal has room for beside the names; whole where none shows it."""
    if not sys.stdout.isatty():
        return [line]
    room = max(20, shutil.get_terminal_size().columns - NAMES - 10)
    return textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)
