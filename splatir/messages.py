"""How an exception or a warning reads to a user: one line, nothing that steers a terminal."""

import errno

_HINTS = {
    errno.ENOSPC: "Free some space and try again",
    errno.EDQUOT: "Free some space and try again",
    errno.EACCES: "Check its permissions, or choose another place",
    errno.EPERM: "Check its permissions, or choose another place",
    errno.EROFS: "Choose a place that can be written to",
    errno.EISDIR: "Give a file, not a folder",
    errno.ENOTDIR: "A part of the path is a file; give another one",
    errno.EEXIST: "Give another path",
    errno.ENAMETOOLONG: "Give a shorter path",
}


def one_line(text: str) -> str:
    """Text on one line; control characters, such as those in hostile file names, are spelt out."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)


def error_message(error: BaseException) -> str:
    """What went wrong and, for errors of the system, with which file and what to do."""
    if isinstance(error, MemoryError):
        text = "out of memory. Lower --photo-memory-gb or raise --downscale."
    elif isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        hint = _HINTS.get(error.errno or 0)
        text = f"{named}{error.strerror}." + (f" {hint}." if hint and error.filename else "")
    else:
        text = str(error)
    return one_line(text) or type(error).__name__
