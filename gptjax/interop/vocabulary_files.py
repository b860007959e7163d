"""Writes a vocabulary as the files that the packages `tokenizers` and `transformers` read."""

from typing import Any

from gptjax.files import as_json
from gptjax.text.bpe import byte_characters
from gptjax.text.byte_level import END_OF_TEXT
from gptjax.text.packages import optional
from gptjax.text.tokenizers import Tokenizer


def vocabulary_files(tokenizer: Tokenizer, block_size: int) -> dict[str, str]:
    """Returns tokenizer.json and tokenizer_config.json, which give the same ids for every text.

    In these packages, too, a character that is not in the vocabulary is an error.

    Raises:
        InputError: the package `tokenizers` is missing.
    """
    tokenizers = optional("tokenizers", "--to huggingface")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.end_id is not None:
        settings |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    whole = _model(tokenizers, tokenizer.to_dict()).to_str()
    return {"tokenizer.json": whole, "tokenizer_config.json": as_json(settings)}


def _model(tokenizers: Any, stored: dict[str, Any]) -> Any:
    """Makes the `tokenizers` model of `stored`, the result of a tokenizer's `to_dict`."""
    models, before, after = tokenizers.models, tokenizers.pre_tokenizers, tokenizers.decoders
    if stored["type"] == "char":
        ids = {character: i for i, character in enumerate(stored["characters"])}
        model = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=""))
        model.pre_tokenizer = before.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        model.decoder = after.Fuse()
        return model
    is_byte = stored["type"] == "byte"
    tokens = [*byte_characters(), END_OF_TEXT] if is_byte else stored["tokens"]
    special = [END_OF_TEXT] if is_byte else stored["special"]
    merges = [] if is_byte else [tuple(merge.split(" ")) for merge in stored["merges"]]
    ids = {token: i for i, token in enumerate(tokens)}
    model = tokenizers.Tokenizer(models.BPE(ids, merges))
    model.pre_tokenizer = before.ByteLevel(add_prefix_space=False, use_regex=not is_byte)
    model.decoder = after.ByteLevel()
    model.add_special_tokens(special)
    return model
