import os
from pathlib import Path

import pytest

from m3rag.errors import InputError
from m3rag.reading import document_id, find_files


@pytest.fixture
def folder(tmp_path):
    for name in ("b.md", "a/z.txt", "a/c/y.PDF", "A.html", "image.png", ".hidden.md", ".git/x.md", "a/.b/x.md"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "root"


def ids(found):
    return [document_id(path, root=root) for root, path in found.files]


def test_folders_are_walked_in_order_without_hidden_names(folder):
    found = find_files([folder])
    assert ids(found) == ["A.html", "b.md", "a/z.txt", "a/c/y.PDF"]
    assert {root for root, _ in found.files} == {folder}
    assert found.skipped == (folder / "image.png",)
    assert find_files(folder) == found


def test_links_are_not_followed(folder, tmp_path):
    (tmp_path / "outside.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    (folder / "loop").symlink_to(folder)
    found = find_files([folder])
    assert ids(found) == ["A.html", "b.md", "a/z.txt", "a/c/y.PDF"]
    assert set(found.skipped) == {folder / "image.png", folder / "link.md", folder / "loop"}
    (tmp_path / "entry").symlink_to(folder)
    assert len(find_files([tmp_path / "entry"]).files) == 4


def test_files_given_by_themselves_are_taken_and_never_collide(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.md").write_text("other")
    found = find_files(["root/b.md", "other/b.md", "root/image.png", folder / "b.md"])
    assert ids(found) == ["root/b.md", "other/b.md", "root/image.png"]


def test_a_file_reached_twice_is_listed_once(folder):
    assert ids(find_files([folder, folder / "a", folder / "b.md"])) == ["A.html", "b.md", "a/z.txt", "a/c/y.PDF"]


def test_two_folders_with_the_same_file_are_refused_by_name(folder, tmp_path):
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "b.md").write_text("second")
    with pytest.raises(InputError, match=r"root/b\.md and .*second/b\.md would both be the document 'b\.md'"):
        find_files([folder, tmp_path / "second"])


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="missing: there is no such file or folder"):
        find_files([tmp_path / "missing"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        find_files([tmp_path / "pipe.txt"])
    assert find_files([tmp_path]).files == ()


def test_a_folder_that_may_not_be_listed(folder, monkeypatch):
    listed = os.scandir

    def denied(path):
        if Path(path) == folder / "a":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)
    found = find_files([folder])
    assert ids(found) == ["A.html", "b.md"]
    assert folder / "a" in found.skipped
    with pytest.raises(InputError, match="cannot be listed"):
        find_files([folder / "a"])


def test_a_path_that_may_not_be_looked_at_is_named(folder, shut):
    shut(folder)
    with pytest.raises(InputError, match=r"b\.md: could not be looked at \(Permission denied\); .*permissions"):
        find_files([folder / "b.md"])


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_a_name_that_no_file_has_is_named(name):
    with pytest.raises(InputError, match=f"{name}: could not be looked at"):
        find_files([name])
