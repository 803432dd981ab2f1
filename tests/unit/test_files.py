"""Files that options name: nothing that another user could have prepared is written."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tbot_otel import files
from tbot_otel.cli import main
from tbot_otel.report.inputs import ReportError
from tbot_otel.report.output import Output
from tbot_otel.run import launcher

PREPARED = "another user could have prepared it, because others can write its folder"
ANOTHER_USER = 65534
Disown = Callable[..., None]


def append(path: str) -> None:
    """Append a text to a file."""
    fd = files.open_for_appending(path)
    os.write(fd, b"new")
    os.close(fd)


def replace(path: str) -> None:
    """Replace a file."""
    with files.Replacement(path) as output:
        output.file.write(b"new")
        output.commit()


each_way = pytest.mark.parametrize("write", [append, replace])


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Check that each descriptor is closed, also after an error."""
    before = {*Path("/dev/fd").iterdir()}
    yield
    assert {*Path("/dev/fd").iterdir()} == before


@pytest.fixture
def disown(monkeypatch: pytest.MonkeyPatch) -> Disown:
    """Give files to another user. Who is not root becomes another user instead."""

    def give_away(*paths: Path) -> None:
        for path in paths:
            if os.geteuid() == 0:
                os.lchown(path, ANOTHER_USER, ANOTHER_USER)
            else:
                monkeypatch.setattr(os, "geteuid", lambda: ANOTHER_USER)

    return give_away


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that every user can write, as /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that nothing may write."""
    file = tmp_path / "victim"
    file.write_text("old")
    return file


def prepare(kind: str, trap: Path, victim: Path, disown: Disown) -> None:
    """Create what another user could have prepared to have a victim written."""
    prepared = trap
    if kind == "link to a link":
        prepared = trap.with_name("another")
        trap.symlink_to(trap.with_name("own"))
        trap.with_name("own").symlink_to(prepared)
    if kind == "file":
        trap.write_text("old")
    elif kind == "pipe":
        os.mkfifo(trap)
    elif kind == "hard link":
        trap.hardlink_to(victim)
    elif kind == "hard link to a link":
        victim.with_name("link").symlink_to(victim)
        os.link(victim.with_name("link"), trap, follow_symlinks=False)
    else:
        targets = {"relative link": Path("../victim"), "dangling link": victim.with_name("created")}
        prepared.symlink_to(targets.get(kind, victim))
    disown(*([] if kind.startswith("hard link") else [prepared]))


KINDS = (
    *("link", "relative link", "dangling link", "link to a link", "file", "pipe"),
    *("hard link", "hard link to a link"),
)


@each_way
@pytest.mark.parametrize("kind", KINDS)
def test_prepared(
    kind: str, write: Callable[[str], None], shared: Path, victim: Path, disown: Disown
) -> None:
    """In a folder that others can write, what another user could have prepared is refused."""
    trap = shared / "trap"
    prepare(kind, trap, victim, disown)
    before = {*shared.iterdir()}
    with pytest.raises(PermissionError) as caught:
        write(str(trap))
    assert caught.value.strerror == PREPARED
    assert victim.read_text() == "old"
    assert {*shared.iterdir()} == before
    assert not victim.with_name("created").exists()


@each_way
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_modes(write: Callable[[str], None], mode: int, shared: Path, disown: Disown) -> None:
    """A folder that a group or everyone can write is one that others can write."""
    trap = shared / "trap"
    prepare("file", trap, trap, disown)
    shared.chmod(mode)
    with pytest.raises(PermissionError, match=PREPARED):
        write(str(trap))
    assert trap.read_text() == "old"


@each_way
def test_folder_of_another_user(write: Callable[[str], None], shared: Path, disown: Disown) -> None:
    """The owner of a folder can write it."""
    trap = shared / "trap"
    prepare("file", trap, trap, disown)
    shared.chmod(0o755)
    disown(shared)
    with pytest.raises(PermissionError, match=PREPARED):
        write(str(trap))
    assert trap.read_text() == "old"


@each_way
def test_link_on_the_way(write: Callable[[str], None], shared: Path, disown: Disown) -> None:
    """Another user's link to a folder is not followed either."""
    (shared.parent / "private").mkdir()
    (shared / "trap").symlink_to("../private")
    disown(shared / "trap")
    with pytest.raises(PermissionError, match=PREPARED):
        write(f"{shared}/trap/created")
    assert not [*(shared.parent / "private").iterdir()]


@each_way
def test_own_links_are_followed(
    write: Callable[[str], None], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links of this user lead to the file, also on the way to it, and stay."""
    (shared / "folder").mkdir()
    (shared / "link").symlink_to("folder")
    (shared / "folder/out").symlink_to("./../folder//inner")
    monkeypatch.chdir(shared)
    write("link/../link/out")
    assert Path("folder/inner").read_text() == "new"
    assert Path("folder/out").is_symlink()
    write(str(shared / "link/inner"))
    assert len([*(shared / "folder").iterdir()]) == 2


@each_way
def test_root_is_trusted(
    write: Callable[[str], None], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs to root is used, since root could do anything."""
    (shared / "out").write_text("")
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: ANOTHER_USER)
    write(str(shared / "out"))
    assert (shared / "out").read_text() == "new"


@each_way
def test_private_folder(write: Callable[[str], None], tmp_path: Path) -> None:
    """In a folder that only this user can write, the user has arranged everything."""
    tmp_path.chmod(0o755)
    out, another = tmp_path / "out", tmp_path / "another"
    another.write_text("")
    if os.geteuid() == 0:
        os.chown(another, ANOTHER_USER, ANOTHER_USER)
    (tmp_path / "link").symlink_to(another)
    write(str(tmp_path / "link"))
    assert another.read_text() == "new"
    out.hardlink_to(another)
    write(str(out))


@each_way
def test_circular_links(write: Callable[[str], None], tmp_path: Path) -> None:
    """Forty links are followed, but a link to itself is an error."""
    for number in range(files.MAX_LINKS):
        (tmp_path / f"{number}").symlink_to(f"{number + 1}")
    write(f"{tmp_path}/0")
    assert (tmp_path / f"{files.MAX_LINKS}").read_text() == "new"
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match=os.strerror(40)):
        write(str(tmp_path / "link"))


def change_after_stat(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[], None]
) -> None:
    """Make a change right after a name was looked up for the first time."""
    real_stat = os.stat
    changes = [change]

    def stat_and_change(path: str, **options: Any) -> os.stat_result:
        try:
            return real_stat(path, **options)
        finally:
            if path == name and changes:
                changes.pop()()

    monkeypatch.setattr(os, "stat", stat_and_change)


def test_file_that_appears(shared: Path, disown: Disown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another user creates after the path was checked is not written."""
    trap = shared / "trap"
    change_after_stat(monkeypatch, "trap", lambda: prepare("file", trap, trap, disown))
    with pytest.raises(PermissionError, match=PREPARED):
        append(str(trap))
    assert trap.read_text() == "old"


def test_file_that_becomes_a_link(
    shared: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that appears after the path was checked is not followed."""
    trap = shared / "trap"
    change_after_stat(monkeypatch, "trap", lambda: trap.symlink_to(victim))
    with pytest.raises(OSError, match=os.strerror(40)):
        append(str(trap))
    assert victim.read_text() == "old"


@each_way
def test_folder_that_becomes_a_link(
    write: Callable[[str], None], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a folder that becomes a link to another one."""
    (shared / "folder").mkdir()

    def change() -> None:
        (shared / "folder").rename(shared / "moved")
        (shared / "folder").symlink_to(tmp_path)

    change_after_stat(monkeypatch, "folder", change)
    with pytest.raises(NotADirectoryError):
        write(f"{shared}/folder/out")
    assert not (tmp_path / "out").exists()


@each_way
def test_folders_of_others(write: Callable[[str], None], shared: Path, disown: Disown) -> None:
    """A new file can be created in another user's folder."""
    (shared / "folder").mkdir()
    if os.geteuid() == 0:
        disown(shared / "folder")
    write(f"{shared}/folder/out")
    assert (shared / "folder/out").read_text() == "new"


def test_link_that_appears(tmp_path: Path, shared: Path) -> None:
    """A file that becomes a link before it is replaced is replaced, and not followed."""
    (shared / "folder").mkdir()
    with files.Replacement(f"{shared}/folder/out") as output:
        (shared / "folder/out").symlink_to(tmp_path / "victim")
        (shared / "folder").rename(shared / "moved")
        (shared / "folder").symlink_to(tmp_path)
        output.file.write(b"new")
        output.commit()
    assert (shared / "moved/out").read_text() == "new"
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "out").exists()


def test_modes_of_files(tmp_path: Path) -> None:
    """A new file is for its owner alone. A file that is replaced keeps its mode."""
    for name, write in (("appended", append), ("replaced", replace)):
        file = tmp_path / name
        write(str(file))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o640)
        write(str(file))
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (tmp_path / "appended").read_text() == "newnew"
    assert (tmp_path / "replaced").read_text() == "new"


def test_replacement_that_is_not_committed(tmp_path: Path) -> None:
    """Without a commit, the file is as it was, and nothing else is left."""
    out = tmp_path / "out"
    out.write_text("old")
    with files.Replacement(str(out)) as output:
        output.file.write(b"new")
        assert len([*tmp_path.iterdir()]) == 2
        with files.Replacement(str(tmp_path / "other")) as other:
            other.file.write(b"new")
            other.commit()
            assert (tmp_path / "other").read_text() == "new"
            (tmp_path / "other").unlink()
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_text() == "old"


def test_guessed_name(shared: Path, disown: Disown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user with the name of the temporary one is not written."""
    monkeypatch.setattr(os, "urandom", bytes)
    trap = shared / f".{bytes(8).hex()}"
    prepare("file", trap, trap, disown)
    with pytest.raises(FileExistsError):
        replace(str(shared / "out"))
    assert trap.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk() -> None:
    """What does not fit is an error of the commit, and hides no other error."""
    with pytest.raises(OSError, match=os.strerror(28)):
        replace("/dev/full")
    with files.Replacement("/dev/full") as output:
        output.file.write(b"new")


@each_way
def test_folders(write: Callable[[str], None], tmp_path: Path) -> None:
    """A path must lead through folders to what is not one."""
    write(str(tmp_path / "out"))
    for name in ("", ".", "missing/out", "out/inner", "out/"):
        with pytest.raises(OSError, match="directory"):
            write(f"{tmp_path}/{name}")


@each_way
def test_own_descriptors(write: Callable[[str], None], tmp_path: Path) -> None:
    """A path of a descriptor is that descriptor: a pipe, a socket, or a file where it is."""
    reader, writer = os.pipe()
    left, right = socket.socketpair()
    with open(tmp_path / "file", "wb") as file:
        file.write(b"before ")
        file.flush()
        for fd in (writer, left.fileno(), file.fileno()):
            write(f"/dev/fd/{fd}")
            write(f"/proc/self/fd/{fd}")
        assert os.read(reader, 10) == right.recv(10) == b"newnew"
        for name in ("77777", "name"):
            with pytest.raises(OSError, match=f"{os.strerror(2)}|{os.strerror(9)}"):
                write(f"/proc/self/fd/{name}")
        file.write(b" after")
    assert (tmp_path / "file").read_text() == "before newnew after"
    for fd in (reader, writer):
        os.close(fd)
    left.close()
    right.close()


@each_way
def test_link_to_standard_output(
    write: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """/dev/stdout works, also through a link."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    write("/dev/stdout")
    write(str(tmp_path / "link"))
    assert capfd.readouterr().out == "newnew"


def test_pipe_without_a_reader(tmp_path: Path) -> None:
    """Appending to a pipe without a reader does not block."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=os.strerror(6)):
        append(str(tmp_path / "pipe"))


@pytest.mark.usefixtures("opted_in")
@pytest.mark.parametrize("option", ["preview -o", "report -o", "emit --record", "run --log"])
def test_every_option(
    option: str, shared: Path, victim: Path, disown: Disown, capfd: pytest.CaptureFixture[str]
) -> None:
    """The rule holds for each option that names a file to write. It is one line."""
    trap = shared / "trap"
    prepare("link", trap, victim, disown)
    if option == "report -o":
        with pytest.raises(ReportError, match=f"^{trap}: {PREPARED}$"), Output(str(trap)):
            pass
    elif option == "run --log":
        assert launcher._open("--log", str(trap)) is None
        assert capfd.readouterr().err == f"tbot-otel run: --log: {PREPARED}\n"
    elif option == "emit --record":
        main(["emit", "--daemon", "--tbot-version=18.3.0", "--record", str(trap)])
        assert capfd.readouterr().err.startswith(f"tbot-otel: --record: {PREPARED}\n")
    else:
        with pytest.raises(SystemExit, match="2"):
            main(["preview", "--daemon", "--tbot-version=18.3.0", "-o", str(trap)])
        assert capfd.readouterr().err == f"tbot-otel preview: {trap}: {PREPARED}\n"
    assert victim.read_text() == "old"


def test_output_of_commands(capfd: pytest.CaptureFixture[str]) -> None:
    """`-o /dev/stdout` works."""
    assert main(["preview", "--tbot-version=18.3.0", "-o", "/dev/stdout"]) == 0
    assert "tbot.version: Str(18.3.0)" in capfd.readouterr().out
    with Output("/dev/stdout") as output:
        output.write(b"a report\n")
    assert capfd.readouterr().out == "a report\n"
