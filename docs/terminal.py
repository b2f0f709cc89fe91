"""The terminal pictures of the README, from real runs: `python docs/terminal.py`.

Each runs a command on the sample documents, as a user would, and writes what it printed as an SVG
into docs/images. It needs an installed m3rag; the index is made in a folder that is removed again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
DOCUMENTS = HERE.parent / "examples" / "documents"
IMAGES = HERE / "images"
MOST_BYTES = 100_000

PICTURES: dict[str, tuple[int, list[str]]] = {
    "search": (112, ["search", "Is Debian free software?", "--explain", "-k", "5"]),
}
"""Name of the picture: the width of the terminal, and the command."""


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        environment = settings_free(Path(work))
        run(["ingest", str(DOCUMENTS), "--quiet"], work, environment)
        for name, (width, command) in PICTURES.items():
            printed = run(command, work, environment | {"COLUMNS": str(width)})
            # A run's own folders say nothing to a reader.
            for folder, shown in ((work, "~/papers"), (str(Path.home()), "~")):
                printed = printed.replace(folder, shown)
            size = write(IMAGES / f"{name}.svg", f"m3rag {quoted(command)}", printed, width)
            sys.stdout.write(f"{name}.svg: {size:,} bytes\n")


def settings_free(work: Path) -> dict[str, str]:
    """The environment without settings of this machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("M3RAG_") or key == "M3RAG_CACHE"}
    (work / ".git").mkdir()
    return kept | {"XDG_CONFIG_HOME": str(work / "config"), "PYTHONUTF8": "1"}


def run(command: list[str], folder: str, environment: dict[str, str]) -> str:
    """What a command prints on a terminal."""
    code = "from m3rag.cli import main; main()"
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], cwd=folder, env=environment, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        printed = b"".join(iter(lambda: received(ours), b""))
    os.close(ours)
    if process.returncode != 0:
        raise SystemExit(f"m3rag {quoted(command)} ended with {process.returncode}:\n{printed.decode()}")
    return printed.decode().replace("\r\n", "\n").rstrip()


def received(terminal: int) -> bytes:
    """What a terminal has to show next; nothing once the process has left it."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def quoted(command: list[str]) -> str:
    """The command as it is typed."""
    return " ".join(f'"{word}"' if " " in word else word for word in command)


def write(file: Path, typed: str, printed: str, width: int) -> int:
    """Write the picture; returns its bytes."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True, highlight=False)
        console.print(Text(f"$ {typed}", style="bold"))
        for line in printed.splitlines():
            console.print(Text.from_ansi(line))
        # The id of all style names: by default a hash of the time, which would change the file each time.
        svg = console.export_svg(title=typed, theme=MONOKAI, unique_id=file.stem)
    # The fonts are named, and never fetched: a picture asks nothing of any server.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, Consolas")
    file.write_text(svg, encoding="utf-8", newline="\n")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{file} has {size} bytes, more than {MOST_BYTES}: show less in it")
    return size


if __name__ == "__main__":
    main()
