"""samples.jsonl has the model's sample at each evaluation, also after resumes and replacements."""

import json

import train
from gptjax.store import runs
from gptjax.store.samples import MAX_CHARACTERS, MAX_LINE_BYTES, SamplesLog, read_samples

from conftest import tiny
from outcomes import go


def samples(path):
    return [json.loads(line) for line in (path / runs.SAMPLES).read_text().splitlines()]


def test_each_evaluation_leaves_the_sample_that_it_prints(tmp_path, text_file, capsys):
    assert go(tmp_path / "run", text_file) == 0
    shown = capsys.readouterr().out
    lines = samples(tmp_path / "run")
    assert [line["step"] for line in lines] == [3, 6]
    for line in lines:
        assert len(line["text"]) == 200
        for part in line["text"].splitlines():
            assert f"    | {part}\n" in shown


def test_a_resume_keeps_the_samples_of_before(run_copy, finished_run):
    assert train.main(["--out-dir", str(run_copy), "--resume", "--max-iters", "9"]) == 0
    assert samples(run_copy)[:-1] == samples(finished_run)
    assert samples(run_copy)[-1]["step"] == 9


def test_a_resume_makes_those_after_its_step_again(run_copy, finished_run):
    (run_copy / "checkpoints" / "6" / "manifest.json").unlink()
    assert train.main(["--out-dir", str(run_copy), "--resume"]) == 0
    assert samples(run_copy) == samples(finished_run)


def test_overwrite_removes_the_samples(run_copy, text_file):
    flags = tiny("--data", text_file, "--max-iters", 1, "--out-dir", run_copy)
    assert train.main([*flags, "--overwrite"]) == 0
    assert [line["step"] for line in samples(run_copy)] == [1]


def test_opening_drops_the_samples_after_the_checkpoint_and_a_torn_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"step": 1, "text": "a"}\n{"step": 4, "text": "b"}\n{"step": 5, "te')
    log = SamplesLog(path, 3)
    log.add(4, "c")
    assert [(x["step"], x["text"]) for x in read_samples(path)] == [(1, "a"), (4, "c")]


def test_a_long_sample_is_cut_so_that_its_line_can_be_read(tmp_path):
    path = tmp_path / "samples.jsonl"
    SamplesLog(path, 0).add(1, "\U0001f600" * 9999)
    assert path.stat().st_size < MAX_LINE_BYTES
    [line] = read_samples(path)
    assert line["text"] == "\U0001f600" * MAX_CHARACTERS
