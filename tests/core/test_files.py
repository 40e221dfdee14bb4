"""Text and names of files as other systems write them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ocl_bench.core.errors import UsageError
from ocl_bench.core.files import check_out, find_file, parse_yaml, read_text, write_atomically


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("süß\r\nb\r\n".encode(encoding))
    assert read_text(path).splitlines() == ["süß", "b"]


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("süß".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "list.txt")


@pytest.mark.parametrize("number", ["1" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20_000, "1" + ":59" * 3000])
def test_integers_in_yaml_that_python_would_not_print(number: str) -> None:
    """Python limits the digits of decimal integers only, and only when they are read or printed."""
    with pytest.raises(ValueError, match=rf"^line 2: an integer of {len(number)} characters; at most 1000$"):
        parse_yaml(f"a: 1\nb: {number}\n")
    assert parse_yaml("[0x10, 1_000, 010, 1:30]") == [16, 1000, 8, 90]


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!map [a]", "1" + ":59" * 300 + ".5"]
)
def test_values_in_yaml_that_their_tags_do_not_fit(value: str) -> None:
    with pytest.raises(ValueError, match=r"^a value does not fit its tag or is too large$"):
        parse_yaml(f"a: {value}\n")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*result\.json'"):
        write_atomically(path, write)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a pipe"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    """As root, a rename onto /dev/null would make a file of the device, for every program on the machine."""
    path, pipe = tmp_path / "page.html", tmp_path / "pipe"
    os.mkfifo(pipe)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.rename(pipe, path)
    else:
        path.symlink_to(pipe)
    before = os.lstat(path)
    with pytest.raises(OSError, match=r"(not a regular file|is a folder): '.*/page\.html'"):
        write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert os.lstat(path) == before


@pytest.mark.parametrize("name", ["/dev/stdout", "link"])
def test_a_link_of_the_system_is_never_replaced(tmp_path: Path, name: str) -> None:
    """/dev/stdout leads to a regular file where the output goes to one; a rename as root would end it for everybody."""
    (tmp_path / "printed").write_text("")
    if name == "link":
        (tmp_path / name).symlink_to("/dev/stdout")
    code = (
        "import sys; from pathlib import Path; from ocl_bench.core.files import write_atomically\n"
        "try: write_atomically(Path(sys.argv[1]), lambda place: Path(sys.argv[2]).touch())\n"
        "except OSError as error: sys.exit(error.strerror)"
    )
    # Nothing is renamed where the check is lacking: /dev/stdout of this machine is at stake.
    code = "import os; os.replace = lambda source, target: None\n" + code
    command = [sys.executable, "-c", code, str(tmp_path / name), str(tmp_path / "new")]
    with (tmp_path / "printed").open("w") as printed:
        done = subprocess.run(command, stdout=printed, stderr=subprocess.PIPE, text=True)
    assert done.stderr.strip() == "not a regular file" and not (tmp_path / "new").exists()


def test_a_link_of_a_user_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for target in ("old", "nowhere", "page.html"):
        path = tmp_path / "page.html"
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / target)
        write_atomically(path, lambda temporary: temporary.write_text("new"))
        assert not path.is_symlink() and path.read_text() == "new"
    assert (tmp_path / "old").read_text() == "old"


def test_an_out_is_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for good, folder in (("new", False), ("file", False), ("a/b/c", False), ("new", True), ("folder", True)):
        check_out(tmp_path / good, folder=folder)
    for bad, folder, reason in (
        ("folder", False, "is a folder"),
        ("/dev/null", False, "not a regular file"),
        ("file/page.html", False, "file: not a folder"),
        ("file", True, "file: not a folder"),
        ("x" * 300, False, "too long"),
        ("/proc/page.html", False, "/proc: no file can be made in it .*"),
        ("/proc/pages/all", True, "/proc: no file can be made in it .*"),
    ):
        with pytest.raises(UsageError, match=f"^--out .*{reason}; choose another place$"):
            check_out(tmp_path / bad, folder=folder)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}

    def refuse(**keywords: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", f"{tmp_path}/tmp123")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # root may write everywhere
    with pytest.raises(
        UsageError,
        match=rf"page.html: {tmp_path}: no file can be made in it .Read-only file system.; choose another place$",
    ):
        check_out(tmp_path / "page.html")


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r": '.*/missing/page\.html'"):
        write_atomically(tmp_path / "missing" / "page.html", lambda temporary: temporary.write_text("new"))


def test_a_suffix_may_be_in_capitals_or_small_letters(tmp_path: Path) -> None:
    for name in ("a.PNG", "b.jpg", "c.Png"):
        (tmp_path / name).touch()
    for asked, found in (("a.png", "a.PNG"), ("b.JPG", "b.jpg"), ("c.png", "c.Png"), ("a.PNG", "a.PNG")):
        assert find_file(tmp_path / asked) == tmp_path / found
    assert find_file(tmp_path / "A.png") is None and find_file(tmp_path / "b") is None


def test_a_file_system_that_is_read_only_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, removing a temporary file that is not there is an error too, and it names the temporary one."""

    def refuse(path: Path, *arguments: object, **keywords: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only file system") as caught:
        write_atomically(tmp_path / "page.html", refuse)
    assert caught.value.filename == str(tmp_path / "page.html")
