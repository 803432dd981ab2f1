"""The rules for files that options and variables name.

We read files, but no pipes or devices (only `report` reads pipes). We write to nothing that another
user could have prepared: where others can write a folder, as in /tmp, a file or symbolic link in it
is used only if it belongs to this user or to root, and has no other name.
"""

import os
from errno import ELOOP
from stat import S_IFDIR, S_IFMT, S_IFREG, S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedWriter
    from typing import Self

MAX_LINKS = 40
"""The most symbolic links on the way to a file, as in Linux."""

_IS_WINDOWS = os.name == "nt"
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_PATH", 0) | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW
_WRITE = os.O_WRONLY | getattr(os, "O_BINARY", 0) | _NOFOLLOW


def expect_file(path: "str | os.PathLike[str]") -> None:
    """Check that a path is that of a file or folder.

    A pipe could keep its reader waiting, and opening a device could start something.

    Raises:
        OSError: It is of something else, or of nothing.
    """
    if S_IFMT(os.stat(path).st_mode) not in (S_IFREG, S_IFDIR):
        raise OSError(None, "expected a file")


def open_for_appending(path: str) -> int:
    """Open a file, which only its owner can read, for appending, and return its descriptor.

    A pipe without a reader is an error, and does not block.

    Raises:
        OSError: It cannot be opened, or another user could have prepared it.
    """
    folder, name, _ = _find(path)
    try:
        return _open(folder, name, os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0))
    finally:
        _close(folder)


class Replacement:
    """A new file, which `commit` puts in the place of the old one. A device or pipe is written to.

    As a context manager, it leaves nothing behind without `commit`.

    Args:
        path: The old file. The new one has its mode; without an old one, only its owner can read
            the new one.

    Attributes:
        file: The new file, open for writing bytes.

    Raises:
        OSError: It cannot be created, or another user could have prepared the old one.
    """

    def __init__(self, path: str) -> None:
        self._folder, self._name, status = _find(path)
        self._temporary = ""
        try:
            if status is None or S_ISREG(status.st_mode):
                name = f".{os.urandom(8).hex()}"
                temporary = os.path.join(os.path.dirname(self._name), name)
                fd = os.open(temporary, _WRITE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
                self._temporary = temporary
                if status is not None and not _IS_WINDOWS:
                    os.fchmod(fd, S_IMODE(status.st_mode))
            else:
                fd = _open(self._folder, self._name, 0)
        except OSError:
            self._close()
            raise
        self.file: BufferedWriter = os.fdopen(fd, "wb")

    def commit(self) -> None:
        """Replace the old file.

        Raises:
            OSError: The new one cannot be written.
        """
        self.file.close()
        if self._temporary:
            folder = self._folder
            os.replace(self._temporary, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            self._temporary = ""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.file.close()
        except OSError:
            # The disk is full: a write has said so.
            pass
        self._close()

    def _close(self) -> None:
        if self._temporary:
            os.unlink(self._temporary, dir_fd=self._folder)
        _close(self._folder)


def _find(path: str) -> tuple[int | None, str, os.stat_result | None]:
    """Follow a path, and return a descriptor of its folder, its name there, and its status.

    Each link is checked before it is followed. The descriptor, which the caller closes, keeps
    another user from replacing a part of the path afterwards.
    """
    if _IS_WINDOWS:
        path = os.path.realpath(path)
        return None, path, os.stat(path) if os.path.exists(path) else None
    parts = path.split("/")[::-1]
    links = 0
    folder = os.open("/" if path.startswith("/") else ".", _FOLDER)
    try:
        while links <= MAX_LINKS:
            name = parts.pop() or "."
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                if parts:
                    raise
                return folder, name, None
            _check(folder, status)
            is_link = S_ISLNK(status.st_mode)
            if not parts and (not is_link or _is_own_descriptor(folder, name)):
                return folder, name, status
            if is_link:
                links += 1
                target = os.readlink(name, dir_fd=folder)
                parts += target.split("/")[::-1]
                name = "/" if target.startswith("/") else "."
            inner = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
    except OSError:
        os.close(folder)
        raise
    os.close(folder)
    raise OSError(ELOOP, os.strerror(ELOOP))


def _open(folder: int | None, name: str, flags: int) -> int:
    if folder is not None and _is_own_descriptor(folder, name):
        # Such as /dev/stdout. A copy goes on where the original is, and can be of a socket.
        return os.dup(int(name))
    fd = os.open(name, _WRITE | flags, 0o600, dir_fd=folder)
    try:
        if folder is not None:
            # Another user could have created it in the meantime.
            _check(folder, os.fstat(fd))
    except OSError:
        os.close(fd)
        raise
    return fd


def _check(folder: int, status: os.stat_result) -> None:
    """Check that no other user could have prepared what is in a folder.

    Raises:
        PermissionError: One could have.
    """
    own = (0, os.geteuid())
    around = os.fstat(folder)
    is_shared = around.st_uid not in own or around.st_mode & 0o022
    is_foreign = status.st_uid not in own or status.st_nlink > 1
    if is_shared and is_foreign and not S_ISDIR(status.st_mode):
        problem = "another user could have prepared it, because others can write its folder"
        raise PermissionError(None, problem)


def _is_own_descriptor(folder: int, name: str) -> bool:
    """Return whether a name in a folder is a descriptor of this process, on Linux."""
    try:
        return name.isdecimal() and os.path.samestat(os.fstat(folder), os.stat("/proc/self/fd"))
    except OSError:
        return False


def _close(folder: int | None) -> None:
    if folder is not None:
        os.close(folder)
