"""Errors that a case or a command can end with, and errors in one line."""


class Unavailable(Exception):
    """This machine lacks something; the message names the command that installs it."""


class Unsupported(Exception):
    """The model, the lowering or the device cannot do this case; the message says why."""


class UsageError(Exception):
    """What the user asked for cannot be; the message says got, expected, what to do. Exit code 2."""


class NotTrusted(Exception):
    """The results would not be comparable; the message says why. Exit code 4."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on any device."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return True
    return any(words in str(error) for words in ("not enough memory", "allocate memory", "out of memory"))


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with those that it only leads up to; the error's type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = next((number for number, line in enumerate(lines) if not line.endswith(":")), len(lines))
    return " ".join(lines[: last + 1]) if lines else type(error).__name__


def root_cause(error: BaseException) -> BaseException:
    """The error that an error was raised from, and so on to the first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """An error's type and the first line of its text."""
    text = first_line(error) if str(error).strip() else ""
    return f"{type(error).__name__}: {text}"[:500]
