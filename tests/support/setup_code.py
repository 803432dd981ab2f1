"""Python code that a process under test runs before its own."""


def override_constants(module: str, **values: object) -> str:
    """Return code that overrides constants of a module, and fails if it does not have them."""
    return (
        f"import {module} as module\n"
        f"assert not {{*{values!r}}} - {{*vars(module)}}\n"
        f"vars(module).update({values!r})\n"
    )
