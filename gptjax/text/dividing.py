"""Divides documents into a training and a validation split, one piece at a time.

With many documents, a hash of a document's content decides its split, so that neither the order nor
other documents matter. With few, the last tenth of the text is for validation, as in the lecture.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gptjax.errors import InputError
from gptjax.text.documents import Documents
from gptjax.text.tokenizers import Tokenizer
from gptjax.tokenizer import UNICODE_SIZE, CharTokenizer

# The default share for validation.
VAL_FRACTION = 0.1
# With fewer documents, the validation split would have too few for a good estimate.
FEW = 100
# BPE learns from at most this much of the training split.
LEARNED_BYTES = 100 * 10**6


class Part(NamedTuple):
    """A piece of one split.

    Attributes:
        ends: a document ends after this piece, and another may follow.
    """

    is_val: bool
    text: str
    ends: bool


class Survey(NamedTuple):
    """The result of reading all documents once.

    Attributes:
        sha256: hash of the documents in order.
        is_several: whether each document ends with a token or a newline. A single text does not,
            nor do a training text and a validation text that come apart.
        is_val: a byte for each document: whether it is for validation.
        train_bytes: size of the training split in UTF-8; approximate with few documents.
        codes: for each code point, whether it occurs in the text.
    """

    documents: int
    characters: int
    bytes: int
    train_bytes: int
    sha256: str
    is_several: bool
    is_val: bytearray
    codes: np.ndarray


def survey(
    source: Documents, val_fraction: float, show: Callable[[], None] = lambda: None
) -> Survey:
    """Reads all documents: counts, hashes and divides them.

    Args:
        show: called after each piece.
    """
    whole, one = hashlib.sha256(), hashlib.sha256()
    characters = size = one_size = train_bytes = 0
    is_val, codes = bytearray(), np.zeros(UNICODE_SIZE, bool)
    for piece in source.pieces():
        show()
        content = piece.text.encode()
        one.update(content)
        codes[np.frombuffer(piece.text.encode("utf-32-le"), "<u4")] = True
        characters, one_size = characters + len(piece.text), one_size + len(content)
        if piece.is_last:
            digest = one.digest()
            whole.update(digest)
            by_hash = share(digest) < val_fraction
            is_val.append(by_hash if piece.is_val is None else piece.is_val)
            train_bytes += 0 if is_val[-1] else one_size
            size, one, one_size = size + one_size, hashlib.sha256(), 0
    is_several = len(is_val) > 1
    if source.first_val is not None:
        is_several = len(is_val) - sum(is_val) > 1
    elif len(is_val) < FEW:
        train_bytes = int((1 - val_fraction) * size)
    sha256 = whole.hexdigest()
    return Survey(len(is_val), characters, size, train_bytes, sha256, is_several, is_val, codes)


def share(digest: bytes) -> float:
    """Converts a hash to a number from 0 to 1, uniformly distributed."""
    return int.from_bytes(digest[:8], "big") / 2**64


def parts(source: Documents, found: Survey, val_fraction: float) -> Iterator[Part]:
    """Reads all documents again, and yields each piece with its split.

    A single document does not end: no end-of-text token follows it.

    Raises:
        InputError: after the last piece, if the documents are not those of `found`.
    """
    whole, one = hashlib.sha256(), hashlib.sha256()
    cut = int((1 - val_fraction) * found.characters)
    is_by_document = source.first_val is not None or found.documents >= FEW
    document = at = 0
    for text, is_last, _ in source.pieces():
        ends = is_last and found.is_several
        one.update(text.encode())
        if is_last:
            whole.update(one.digest())
            one = hashlib.sha256()
        if is_by_document and document < found.documents:
            yield Part(bool(found.is_val[document]), text, ends)
        elif at < cut < at + len(text):
            yield Part(False, text[: cut - at], False)
            yield Part(True, text[cut - at :], ends)
        else:
            yield Part(at >= cut, text, ends)
        document, at = document + is_last, at + len(text)
    if whole.hexdigest() != found.sha256:
        raise InputError(
            "the files changed while they were read: give the command again (`prepare` with "
            "--overwrite)"
        )


def learned_from(source: Documents, found: Survey, val_fraction: float) -> Iterator[str]:
    """Yields the pieces that BPE learns from: at most LEARNED_BYTES of training text, by hash."""
    wanted, taken = LEARNED_BYTES / max(found.train_bytes, 1), 0
    for is_val, text, _ in parts(source, found, val_fraction):
        if is_val:
            continue
        content = text.encode()
        if wanted >= 1 or share(hashlib.sha256(content).digest()) < wanted:
            taken += len(content)
            if taken > LEARNED_BYTES:
                return
            yield text


def characters(found: Survey) -> CharTokenizer:
    """Makes the vocabulary of all documents' characters, and the newline if there are several."""
    codes = found.codes.copy()
    codes[ord("\n")] |= found.is_several
    return CharTokenizer(codes.nonzero()[0].astype("<u4").tobytes().decode("utf-32-le"))


def separated(part: Part, tokenizer: Tokenizer) -> Part:
    """Adds a newline after a document if the tokenizer has no end-of-text token."""
    if part.ends and tokenizer.end_id is None and not part.text.endswith("\n"):
        return part._replace(text=part.text + "\n")
    return part


def check_divided(found: Survey, val_fraction: float) -> None:
    """Checks that neither split is empty.

    Raises:
        InputError: there is no text, or one split would be empty.
    """
    if not found.documents:
        raise InputError("the files contain no text")
    if found.documents < FEW and int((1 - val_fraction) * found.characters) in (
        0,
        found.characters,
    ):
        raise InputError(
            f"the text is too short: with {val_fraction:g} of its {found.characters} characters "
            "for validation, one of the two parts would be empty"
        )
    if found.documents >= FEW and sum(found.is_val) in (0, found.documents):
        raise InputError(
            f"{sum(found.is_val)} of {found.documents} documents would be for validation: choose "
            f"another --val-fraction than {val_fraction:g}"
        )
