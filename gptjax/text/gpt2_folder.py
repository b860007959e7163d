"""A folder with a vocabulary in GPT-2's form: tokenizer.json, or vocab.json and merges.txt."""

from pathlib import Path
from typing import Any

from gptjax.errors import InputError
from gptjax.files import read_json
from gptjax.text.byte_level import END_OF_TEXT
from gptjax.text.packages import optional

VOCABULARY, WHOLE_TOKENIZER = ("vocab.json", "merges.txt"), "tokenizer.json"
# Files that list special tokens; each may be missing.
SPECIAL, ADDED, SETTINGS = "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json"


def is_folder_of_vocabulary(folder: Path) -> bool:
    """Whether a folder contains the files of a vocabulary."""
    return (folder / WHOLE_TOKENIZER).is_file() or all(
        (folder / name).is_file() for name in VOCABULARY
    )


def read_folder(folder: Path, what: str, way_out: str) -> Any:
    """Reads the vocabulary as a `tokenizers.Tokenizer`, with one id for each special token.

    Args:
        what: what needs the vocabulary, for the message about a missing package.
        way_out: how to get the files, for the message about missing ones.

    Raises:
        InputError: the folder has no vocabulary, or the vocabulary cannot be read.
    """
    tokenizers = optional("tokenizers", what)
    if not is_folder_of_vocabulary(folder):
        raise InputError(
            f"{folder} has no vocabulary: {WHOLE_TOKENIZER}, or {' and '.join(VOCABULARY)}; "
            + way_out
        )
    try:
        if (folder / WHOLE_TOKENIZER).is_file():
            return tokenizers.Tokenizer.from_file(str(folder / WHOLE_TOKENIZER))
        return _from_parts(folder, tokenizers)
    except InputError:
        raise
    except Exception as error:  # the package raises bare Exception for a file it cannot parse
        raise InputError(f"{folder}: the vocabulary cannot be read: {error}") from error


def _from_parts(folder: Path, tokenizers: Any) -> Any:
    """Builds the tokenizer that tokenizer.json would describe."""
    settings, added = _read(folder / SETTINGS), dict(_read(folder / ADDED))
    for number, token in settings.get("added_tokens_decoder", {}).items():
        added[token["content"]] = int(number)
    tokenizer = tokenizers.ByteLevelBPETokenizer(
        *(str(folder / name) for name in VOCABULARY),
        add_prefix_space=settings.get("add_prefix_space", False),
    )
    special = [END_OF_TEXT]
    for token in _read(folder / SPECIAL).values():
        special.append(token["content"] if isinstance(token, dict) else token)
    tokenizer.add_special_tokens(
        [x for x in special if isinstance(x, str) and tokenizer.token_to_id(x) is not None]
    )
    for token, number in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([token])
        if tokenizer.token_to_id(token) != number:
            raise InputError(
                f"{folder}: added token {token!r} has id {number}, but after {VOCABULARY[0]} its "
                f"id must be {tokenizer.token_to_id(token)}"
            )
    return tokenizer


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, links=True) if path.is_file() else {}
