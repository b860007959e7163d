"""Text files: their bytes, checked as they are read, and the text that the bytes encode."""

from pathlib import Path

from gptjax.errors import InputError

# A place in a text is an int32 on the device.
MAX_BYTES = 2**31 - 1
CHUNK = 2**22


def read_text(path: Path) -> str:
    """A UTF-8 file's text, its newlines as they are in the file.

    Raises:
        InputError: as `read_bytes` and `decode`.
    """
    return decode(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """A text file's bytes.

    Raises:
        InputError: it is missing, a directory, unreadable, empty, binary or too large.
    """
    content = bytearray()
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory: give the path of one text file")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                content += chunk
                # Now, not at the end: some devices have none.
                check_no_nul(path, chunk, len(content) - len(chunk))
                if len(content) > MAX_BYTES:
                    raise InputError(f"{path} is larger than {MAX_BYTES} bytes: give a part of it")
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; give the path of a text file, or 'shakespeare' for the corpus"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{str(path)!a} cannot be read: {error}") from error
    if not content:
        raise InputError(f"{path} is empty: give a file with text in it")
    return bytes(content)


def check_no_nul(path: Path, content: bytes, start: int = 0) -> None:
    """Takes a NUL byte as the sign of a file that is no text.

    Args:
        start: where in the file `content` begins.

    Raises:
        InputError: there is one.
    """
    nul = content.find(b"\0")
    if nul >= 0:
        raise InputError(f"{path} is binary, not text: byte {start + nul} is NUL")


def decode(path: Path, content: bytes) -> str:
    """The text of a file.

    Raises:
        InputError: a NUL byte shows that it is binary, or it is not UTF-8.
    """
    check_no_nul(path, content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8: byte {error.start} (0x{content[error.start]:02x}); "
            "convert it first, for instance with `iconv -t UTF-8`"
        ) from error
