"""`m3rag config`: the settings that hold here, and where each comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from m3rag.cli.console import command, note, print_json, say
from m3rag.cli.options import Debug, Json

config = typer.Typer(
    name="config",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Show the settings that hold here, and where they come from.",
)


@config.command("show")
@command
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Show where each setting comes from.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show every setting and its value; secrets are shown as ***.

    A setting comes from the command line, else a variable (M3RAG_TOP_K, M3RAG_LLM__MODEL), else .env,
    else m3rag.toml (here, in a folder above up to the one with .git, or yours), else it is the default.
    """
    from m3rag.doctor.origins import origins
    from m3rag.settings import variable_of

    found = origins()
    if as_json:
        shown = [asdict(setting) | {"variable": variable_of(setting.name)} for setting in found]
        print_json("config", {"settings": shown})
        return
    for setting in found:
        value = "-" if setting.value is None else setting.value
        say(f"{setting.name:<22} {value!s:<24} {setting.origin}" if origin else f"{setting.name:<22} {value}")


@config.command("path")
@command
def path(as_json: Json = False, debug: Debug = False) -> None:
    """Show the files that settings are read from here, those that go first ahead."""
    from m3rag.doctor.origins import setting_files, user_file

    files = setting_files()
    if as_json:
        print_json("config-path", {"files": [str(file) for file in files], "user_file": str(user_file())})
        return
    for file in files:
        say(str(file))
    if not files:
        note(f"no file holds settings here; m3rag reads .env, m3rag.toml and {user_file()}")
