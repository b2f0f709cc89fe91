"""`m3rag doctor`: what is wrong, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from m3rag.cli.console import FOUND_PROBLEMS, command, note, print_json, printable, say
from m3rag.cli.options import Debug, Index, Json, Model

if TYPE_CHECKING:
    from m3rag.doctor import Check, Severity

COLOURS: dict[Severity, str] = {"ok": "green", "info": "blue", "warning": "yellow", "error": "red"}


@command(tells_variables=False)
def doctor(index: Index = None, model: Model = None, as_json: Json = False, debug: Debug = False) -> None:
    """Look at settings, model, index, language model and machine; name what mends what is wrong.

    Nothing is changed and nothing is sent anywhere but to the servers that your settings name.
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
        note(f"{problems} problem{'' if problems == 1 else 's'} found" if problems else "nothing is wrong")
    if problems:
        raise typer.Exit(FOUND_PROBLEMS)


def print_check(check: Check) -> None:
    """A line for what was found, and one for what mends it."""
    severity = typer.style(f"{check.severity:<8}", fg=COLOURS[check.severity], bold=check.is_problem)
    first, *rest = printable(check.message).splitlines() or [""]
    typer.echo(f"{severity} {check.name:<18} {first}")
    for line in rest:
        say(f"{'':<27} {line}")
    if check.remedy is not None:
        say(f"{'':<27} -> {check.remedy}")
