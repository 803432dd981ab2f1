"""Finds the hook for programs that PyInstaller builds, through the entry point `pyinstaller40`."""


def get_hook_dirs() -> list[str]:
    """Return the folder of the hook."""
    return list(__path__)
