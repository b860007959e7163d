"""Tokens on the device and tokens on the host give the same batches, losses and runs."""

import json
import signal
import threading
from functools import partial

import jax
import numpy as np
import pytest

import train
from gptjax import __main__ as command
from gptjax import data, training
from gptjax.backends import feeding
from gptjax.backends.feeding import Ahead, HostTokens, Resident, evaluate, feed, steps_a_block
from gptjax.config import RunConfig
from gptjax.data import sample_batch, wide_starts
from gptjax.errors import InputError
from gptjax.model import GPT
from gptjax.training import make_keys

from conftest import TEXT, fresh_state, tiny, tiny_config
from outcomes import TIMES, assert_same_state, metrics
from several import ended, start_together

CONFIG = tiny_config(log_interval=3, data_on_device="no")
T, B = CONFIG.model.block_size, CONFIG.train.sequences_per_update
IDS = np.random.default_rng(0).integers(0, CONFIG.model.vocab_size, 5000).astype(np.uint16)
KEY = make_keys(CONFIG.seed).data


@pytest.fixture
def ahead():
    source = Ahead(HostTokens(IDS, CONFIG.model.vocab_size, None), CONFIG)
    yield source
    source.close()


def test_a_step_has_the_same_batch_on_both_sides_wherever_a_run_begins(ahead):
    for step in (0, 2, 3, 4, 11, 3, 2**31 - 2):
        block = ahead.at(step)
        assert step < ahead.reach(step) <= step + 3
        expected = sample_batch(jax.numpy.asarray(IDS), KEY, step, B, T)
        for found, batch in zip(block.batch(step), expected, strict=True):
            np.testing.assert_array_equal(found, batch)
            assert found.dtype == batch.dtype


def test_the_next_block_is_read_before_it_is_asked_for(ahead, monkeypatch):
    read, has_read = [], threading.Event()
    make = ahead._make

    def noted(first, drawn):
        read.append((first, threading.current_thread() is threading.main_thread()))
        if first == 3:
            has_read.set()
        return make(first, drawn)

    monkeypatch.setattr(ahead, "_make", noted)
    ahead.at(0)
    assert has_read.wait(30)
    assert read == [(0, False), (3, False)]
    ahead.at(1)
    ahead.at(2)
    assert len(read) == 2


@pytest.mark.parametrize(("length", "windows"), [(5000, 0), (5000, 7), (T + 3, 0), (4999, 0)])
def test_validation_gives_the_same_loss_to_the_last_bit(length, windows, monkeypatch):
    monkeypatch.setattr(training, "EVAL_TOKENS", 16 * T)
    monkeypatch.setattr(feeding, "GROUP", 4)
    model, params = GPT(CONFIG.model), fresh_state(CONFIG, KEY).params
    host = HostTokens(IDS[:length], CONFIG.model.vocab_size, None)
    there = evaluate(model, params, jax.numpy.asarray(IDS[:length]), max_windows=windows)
    assert evaluate(model, params, host, max_windows=windows) == there


def test_a_text_of_more_tokens_than_32_bits_count(tmp_path):
    """A sparse file that contains only its first and its last ids."""
    count = 2**32 + 1000
    path = tmp_path / "train.bin"
    with path.open("wb") as file:
        file.truncate(2 * count)
        file.seek(2 * (count - 50))
        file.write(np.full(50, 3, np.uint16).tobytes())
    tokens = np.memmap(path, np.uint16, "r")
    source = Ahead(HostTokens(tokens, CONFIG.model.vocab_size, None), CONFIG)
    block = source.at(4)
    source.close()
    assert block.windows_SBT.shape == (3, B, T + 1)
    bits = np.array([[0, 0], [1, 0], [0, 5], [2**32 - 1, 2**32 - 1]], np.uint32)
    expected = [(int(high) * 2**32 + int(low)) % (count - T) for high, low in bits]
    assert wide_starts(bits, count - T).tolist() == expected
    drawn = data.wide_bits(KEY, 0, 1000)
    starts = wide_starts(np.asarray(drawn), count - T)
    assert (starts >= 0).all()
    assert (starts < count - T).all()
    assert 0.4 < (starts < 2**31).mean() < 0.6

    whole = training.evaluation_starts(count, 2**20, 0, 1)
    assert whole.max() > 2**32 - 2**20
    last = HostTokens(tokens, CONFIG.model.vocab_size, None).windows(
        np.array([[count - T - 1, count - 2, count]]), T
    )
    assert (np.asarray(last) == 3).all()


def test_below_that_the_formula_is_the_devices(ahead):
    assert not ahead._is_wide


def test_a_run_from_the_host_is_the_run_from_the_device(finished_run, tmp_path, capsys):
    run, text_file = tmp_path / "run", finished_run.parent / "text.txt"
    flags = ["--data", text_file, "--out-dir", run, "--data-on-device", "no"]
    assert train.main(tiny(*flags, "--log-interval", 2)) == 0
    assert "read from disk as needed" in capsys.readouterr().out
    assert_same_state(run, finished_run)
    found, expected = (metrics(path, *TIMES)[-1] for path in (run, finished_run))
    assert found["val_loss"] == expected["val_loss"]
    # It may change at a resume.
    assert train.main(["--resume", "--out-dir", str(run), "--data-on-device", "yes"]) == 0
    assert train.main(["--eval-only", "--out-dir", str(run), "--data-on-device", "no"]) == 0
    assert f"validation loss {expected['val_loss']:.4f}" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_read_their_rows_and_a_resume_on_one_goes_on(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    corpus = tmp_path / "corpus"
    assert command.main(["prepare", str(tmp_path / "text.txt"), "--out", str(corpus)]) == 0
    for where in ("yes", "no"):
        flags = tiny("--data", corpus, "--out-dir", tmp_path / where, "--log-interval", 1)
        flags += ["--data-on-device", where]
        found = ended(start_together(*flags, devices=2))
        assert [status for status, _, _ in found] == [0, 0], found
        more = ["--resume", "--max-iters", "9", "--out-dir", str(tmp_path / where)]
        assert train.main(more) == 0
    assert_same_state(tmp_path / "yes", tmp_path / "no")
    assert metrics(tmp_path / "yes", *TIMES) == metrics(tmp_path / "no", *TIMES)


def test_an_id_beyond_the_vocabulary_ends_the_run_in_one_line(
    finished_run, tmp_path, refused, monkeypatch
):
    """In a file over 4 GB, ids are not checked at the start, but those of each batch are."""
    text_file, corpus = finished_run.parent / "text.txt", tmp_path / "corpus"
    assert command.main(["prepare", str(text_file), "--out", str(corpus)]) == 0
    monkeypatch.setattr("gptjax.text.prepared.VERIFIED", 0)
    monkeypatch.setattr("gptjax.text.prepared.CHUNK", 1000)
    path = corpus / "train.bin"
    ids = np.fromfile(path, np.uint16)
    ids[1000:] = 999
    ids.tofile(path)
    flags = tiny("--data", corpus, "--out-dir", tmp_path / "run", "--data-on-device", "no")
    error = refused(train, *flags)
    assert f"{path} has id 999, but the vocabulary has" in error
    np.full(len(ids), 999, np.uint16).tofile(path)  # the first tokens are decoded at the start
    error = refused(train, *flags, "--overwrite")
    assert f"{path}: token 0 has id 999, but the vocabulary has" in error


def test_a_file_that_shrinks_under_a_run_is_named(tmp_path):
    """Reading past the end would kill the process with SIGBUS."""
    path = tmp_path / "train.bin"
    IDS.tofile(path)
    source = Ahead(HostTokens(np.memmap(path, np.uint16, "r"), 99, None), CONFIG)
    source.at(0)
    assert source._next is not None
    source._next[1].result()  # the thread is not reading now
    path.write_bytes(b"")
    with pytest.raises(InputError, match="had 10000 bytes when the run began, but has 0 now"):
        source.at(9000)
    source.close()


def test_a_failure_and_a_signal_end_the_thread(finished_run, tmp_path, monkeypatch, capsys):
    flags = ["--data", finished_run.parent / "text.txt", "--data-on-device", "no"]
    windows, signals, before = HostTokens.windows, [], set(threading.enumerate())

    def fails(self, starts, T):
        raise OSError(5, "Input/output error")

    def signalled(self, starts, T):
        if not signals:  # a second one would end the process at once
            signals.append(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return windows(self, starts, T)

    monkeypatch.setattr(HostTokens, "windows", fails)
    assert train.main(tiny(*flags, "--out-dir", tmp_path / "failed")) != 0
    assert "Input/output error" in capsys.readouterr().err
    monkeypatch.setattr(HostTokens, "windows", signalled)
    assert train.main(tiny(*flags, "--out-dir", tmp_path / "stopped")) == 143
    after = set(threading.enumerate()) - before
    assert not [x for x in after if x.name.startswith("reading")]
    monkeypatch.undo()
    assert train.main(["--resume", "--out-dir", str(tmp_path / "stopped")]) == 0
    assert_same_state(tmp_path / "stopped", finished_run)


def test_what_fits_lives_on_the_device_and_a_block_has_a_size(monkeypatch):
    auto = RunConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict())))
    auto = auto.replace(data_on_device="auto")
    chosen = partial(feed, auto, None, (IDS, IDS[:100]))
    assert isinstance(chosen()[0], Resident)
    monkeypatch.setattr(feeding, "DEVICE_BYTES", IDS.nbytes)
    source, val = chosen()
    assert isinstance(source, Ahead)
    assert isinstance(val, HostTokens)
    source.close()
    assert steps_a_block(CONFIG, 2) == 3
    monkeypatch.setattr(feeding, "BLOCK_BYTES", 2 * 2 * B * (T + 1))
    assert steps_a_block(CONFIG, 2) == 2
    assert steps_a_block(CONFIG, 4) == 1
    monkeypatch.setattr(feeding, "WIDE", len(IDS))
    with pytest.raises(InputError, match="--data-on-device yes: the text has 5000 tokens"):
        feed(auto.replace(data_on_device="yes"), None, (IDS, IDS))
    assert isinstance(chosen()[1], HostTokens)
