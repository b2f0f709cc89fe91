"""Which files of a folder are meant: globs to include and exclude, and `.gitignore`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from m3rag.errors import InputError
from m3rag.reading.gitignore import Patterns

GITIGNORE = ".gitignore"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a person says of the files of a folder. All patterns are those of `.gitignore`.

    `*.md` is any depth, `/notes` only the root's, `drafts/` a folder, `**/old/*` as one expects, and
    `!` takes back what an earlier pattern says. They are compared with the path below the root.

    Attributes:
        include: If there are any, only files that one of them matches are taken.
        exclude: Files and folders that are left out, whatever `include` says.
        gitignore: Whether to leave out what the folder's `.gitignore` files do, those of folders within it
            and, if it lies in a Git repository, those above it up to the repository's top.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = False

    def below(self, root: Path) -> FolderRules:
        """The rules for the files of a root.

        Raises:
            InputError: A pattern is none.
        """
        folder = _base(root)
        found = FolderRules(
            root=folder,
            include=_spec(self.include, "include") if self.include else None,
            exclude=_spec(self.exclude, "exclude") if self.exclude else None,
            gitignore=self.gitignore,
        )
        if self.gitignore:
            for above in _up_to_repository(root.resolve()):
                found = found.entering(above, folder=_base(above))
            # The walk speaks of the root as it was given.
            found = FolderRules(folder, found.include, found.exclude, True, found.ignores, _base(root.resolve()))
        return found


@dataclass(frozen=True, slots=True)
class FolderRules:
    """The rules within one folder of a root: those of the root, and each `.gitignore` on the way to it."""

    root: str
    include: Patterns | None = None
    exclude: Patterns | None = None
    gitignore: bool = False
    ignores: tuple[tuple[str, Patterns], ...] = ()
    real_root: str = field(default="")

    def entering(self, path: Path, *, folder: str | None = None) -> FolderRules:
        """The rules within a folder, its own `.gitignore` included."""
        if not self.gitignore or not (path / GITIGNORE).is_file():
            return self
        try:
            lines = (path / GITIGNORE).read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
        except OSError as error:
            raise InputError(
                f"{path / GITIGNORE}: could not be read ({error.strerror}); check its permissions"
            ) from error
        at = folder or self._real(_base(path))
        spec = Patterns.of(lines, strict=False)
        return FolderRules(self.root, self.include, self.exclude, True, (*self.ignores, (at, spec)), self.real_root)

    def leaves_out(self, path: Path, *, is_folder: bool) -> bool:
        """Whether a file or folder is not meant. What is in a folder that is left out is, too."""
        if not (self.include or self.exclude or self.ignores):
            return False
        name = path.as_posix() + ("/" if is_folder else "")
        below = name[len(self.root) :]
        if self.exclude is not None and self.exclude.says(below):
            return True
        real = self._real(name)
        for base, spec in reversed(self.ignores):  # the deepest that says anything decides
            said = spec.says(real[len(base) :])
            if said:
                return True
            if said is not None:
                break  # taken back, which is all it says: `include` is still asked
        return self.include is not None and not is_folder and not self.include.says(below)

    def _real(self, name: str) -> str:
        return self.real_root + name[len(self.root) :] if self.real_root else name


def _base(folder: Path) -> str:
    """What all names in a folder begin with."""
    name = folder.as_posix()
    return "" if name == "." else name if name.endswith("/") else name + "/"


def _up_to_repository(root: Path) -> list[Path]:
    """The folders above a root that belong to its Git repository, outermost first; none if there is no such."""
    if (root / ".git").exists():
        return []
    for depth, folder in enumerate(root.parents):
        if (folder / ".git").exists():
            return list(reversed(root.parents[: depth + 1]))
    return []


def _spec(patterns: Iterable[str], where: str) -> Patterns:
    try:
        return Patterns.of(patterns)
    except ValueError as error:
        raise InputError(f"{where}: {error}; write patterns as in .gitignore, such as *.md or drafts/") from error
