"""Several processes train one model as one process would, with one run folder."""

import re

import jax
import numpy as np
import pytest

import sample
import train
from gptjax.app.train_flags import OPTIONS, check_options
from gptjax.backends import distributed
from gptjax.backends.distributed import ALONE, Peers, first, first_of_any
from gptjax.errors import InputError, RunError
from gptjax.store import runs

from conftest import TEXT, tiny
from outcomes import metrics
from several import call, ended, start_together

FLAGS = tiny(
    *("--batch-size", 8, "--max-iters", 12, "--eval-interval", 6, "--log-interval", 1),
    *("--learning-rate", "1e-3", "--n-head", 4),
)


def losses(path):
    return [line["train_loss"] for line in metrics(path) if "train_loss" in line]


@pytest.mark.slow
def test_two_processes_train_as_one_and_a_run_goes_on_anywhere(tmp_path):
    """Two processes of four devices, then one of two, then two of one; beside it, one device."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    two, one = tmp_path / "runs" / "two", tmp_path / "one"

    found = ended(start_together(*FLAGS, "--data", text, "--out-dir", two))
    assert [status for status, _, _ in found] == [0, 0], found
    assert "mesh: data=8" in found[0][1]
    assert found[1][1:] == ("", ""), "process 0 alone prints"

    done = call("train.py", "--out-dir", two, "--resume", "--max-iters", 16, devices=2)
    assert (done.returncode, "mesh: data=2" in done.stdout) == (0, True), done.stderr
    more = ["--resume", "--max-iters", 20, "--mesh", "fsdp=2"]
    found = ended(start_together("--out-dir", two, *more, devices=1))
    assert [status for status, _, _ in found] == [0, 0], found
    assert "mesh: fsdp=2" in found[0][1]

    for flags in (
        [*FLAGS, "--data", str(text)],
        ["--resume", "--max-iters", "16"],
        ["--resume", "--max-iters", "20"],
    ):
        assert train.main([*flags, "--out-dir", str(one)]) == 0
    assert [line["step"] for line in metrics(two)] == list(range(1, 21))
    np.testing.assert_allclose(losses(two), losses(one), rtol=0, atol=5e-6)
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["two"]
    a, b = (runs.load_run(path, "latest").params for path in (two, one))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), a, b)


def test_what_one_process_cannot_do_ends_the_other(tmp_path):
    """Process 0 refuses the text; the other reports that, and does not wait."""
    path = tmp_path / "run"
    found = ended(start_together(*FLAGS, "--data", tmp_path / "none.txt", "--out-dir", path))
    assert [status for status, _, _ in found] == [2, 1], found
    assert "none.txt" in found[0][2]
    assert found[1][2] == "train.py: error: process 0 failed, and printed the reason\n"
    assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-processes", 2], "missing --coordinator-address, --process-id"),
        (["--process-id", 0], "missing --coordinator-address, --num-processes"),
        (["--coordinator-address", "here"], "missing --num-processes, --process-id"),
        (["--coordinator-address", "here", "--num-processes", 2, "--process-id", 0], "HOST:PORT"),
        (["--coordinator-address", ":1", "--num-processes", 2, "--process-id", 0], "HOST:PORT"),
        (["--coordinator-address", "a:1e3", "--num-processes", 2, "--process-id", 0], "HOST:PORT"),
        (["--coordinator-address", "a:1", "--num-processes", 2, "--process-id", 2], "from 0 to 1"),
        (["--coordinator-address", "a:1", "--num-processes", 2, "--process-id=-1"], "from 0 to 1"),
        (["--coordinator-address", "a:1", "--num-processes", 0, "--process-id", 0], "at least 1"),
        (["--heartbeat-seconds", 0], "--heartbeat-seconds 0 must be at least 1"),
        (["--mesh", "data=2"], "needs 2 devices, but there are 1: --mesh data=1 fits"),
        (["--mesh", "rows=2"], "'rows' must be one of data, fsdp, tensor"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, text_file, refused, flags, message):
    path = tmp_path / "run"
    error = refused(train, *FLAGS, "--data", text_file, "--out-dir", path, *flags)
    assert message in error
    assert not path.exists()


def test_one_process_decides_alone():
    assert ALONE.agree(3) == 3
    assert ALONE.agree(None, first_of_any) is None
    assert first([1, 2]) == 1
    assert first_of_any([None, 15, 2]) == 15
    ALONE.fail()  # there is no other process to tell


class Service:
    """Replaces the coordination service, for processes that are threads here."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self.values[key]

    def blocking_key_value_get(self, key, timeout_in_ms):
        del timeout_in_ms
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
        return self.values[key]

    def key_value_delete(self, key):
        for found in [x for x in self.values if x.startswith(key)]:
            del self.values[found]


def test_all_get_the_same_answer_and_nothing_is_left_of_old_ones():
    service = Service()
    zero, one = (Peers(i, 2, service) for i in range(2))
    for step in range(3):
        # Process 1 has sent its value and waits; process 0 reads the value and answers.
        service.key_value_set(f"gptjax/agree/{step + 1}/1", str(step))
        assert zero.agree(10 * step, max) == 10 * step
        one._asked = step + 1
        assert one._wait_for(f"gptjax/agree/{step + 1}/0", 0) == str(10 * step)
    assert not [key for key in service.values if re.search("agree/[12]/", key)]


def test_whoever_waits_is_told_of_a_failure_and_does_not_wait_for_ever(monkeypatch):
    service = Service()
    zero, one = (Peers(i, 2, service) for i in range(2))
    monkeypatch.setattr(distributed, "AGREE_SECONDS", 0.05)
    with pytest.raises(RunError, match="process 1 did not answer within 0 s"):
        zero.agree(1)
    one.fail()
    monkeypatch.setattr(distributed, "AGREE_SECONDS", 60.0)
    with pytest.raises(RunError, match="process 1 failed, and printed the reason"):
        zero.agree(1)


def test_a_process_that_used_its_devices_does_not_look_for_a_cluster():
    jax.devices()
    assert distributed.join(None, None, None, 10, lambda: None) is ALONE
    assert distributed.join(None, 1, None, 10, lambda: None) is ALONE
    with pytest.raises(InputError, match="could not be joined"):
        distributed.join("127.0.0.1:1", 2, 1, 10, lambda: None)


def test_a_program_that_joined_others_leaves_it_to_train_py(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=r"leave that to train\.py"):
        distributed.join(None, None, None, 10, lambda: None)
    monkeypatch.undo()
    assert distributed.join(None, None, None, 10, lambda: None) is ALONE


@pytest.mark.parametrize(
    ("option", "given", "instead"),
    [
        ("budget_minutes", {}, {"max_iters": 5}),
        ("page", {}, {}),
        (None, {"data": "-"}, {"data": "my.txt"}),
    ],
)
def test_what_several_processes_cannot_do(option, given, instead):
    nothing = dict.fromkeys(OPTIONS)
    two = Peers(0, 2)
    with pytest.raises(InputError, match=r"measures one process|must read the text|leave it out"):
        check_options(nothing | ({option: 1.0} if option else {}), given, two)
    check_options(nothing, instead, two)
    check_options(nothing | ({option: 1.0} if option else {}), given, ALONE)


@pytest.mark.slow
def test_a_model_is_divided_for_sampling_and_scoring(tmp_path, text_file, finished_run, capsys):
    """The same text and the same loss as on one device."""
    flags = ["--out-dir", str(finished_run), "--temperature", "0", "--max-new-tokens", "40"]
    scoring = ["--out-dir", str(finished_run), "--score", str(text_file)]
    for given in (flags, scoring):
        assert sample.main(given) == 0
        alone = capsys.readouterr().out
        done = call("sample.py", *given, "--mesh", "fsdp=2,tensor=2", devices=4)
        assert (done.returncode, done.stdout) == (0, alone), done.stderr
    refused = call("sample.py", *flags, "--mesh", "tensor=4", devices=4)
    assert refused.returncode == 2
    assert "n_head (2) must be divisible by tensor (4); --mesh data=4 fits" in refused.stderr
