"""Shards as jobs of batch systems: Slurm through submitit's own local executor, a script, and a Kubernetes manifest."""

import json
import os
import stat
import subprocess
import sys

import pytest

from mixprof.cli import main
from mixprof.data import run_folder
from test_cli import QUICK, mixprof

AXES = ("--models", "depthwise_conv", "--resolutions", "7", "--batches", "1,2,3", "--channels", "32")


@pytest.mark.slow
def test_slurm_end_to_end_with_submitits_local_executor(tmp_path):
    pytest.importorskip("submitit")
    to = ("--on", "slurm", "--shards", "2", "--job", "cluster=local", "--out", tmp_path / "run")
    done = mixprof("sweep", *AXES, *QUICK, *to)
    assert done.returncode == 0, done.stderr
    records = run_folder.read_records(tmp_path / "run")
    assert sorted((record.case.model, record.case.batch) for record in records) == [
        ("anchor_v1", 1), ("depthwise_conv", 1), ("depthwise_conv", 2), ("depthwise_conv", 3),
    ]  # fmt: skip
    assert {record.status for record in records} == {"ok"}
    manifest = run_folder.read_manifest(tmp_path / "run")
    assert (manifest.sweep.cases, manifest.sweep.shards) == (4, None)
    assert len(manifest.origins or {}) == 2


@pytest.mark.slow
def test_a_shard_that_fails_is_named_and_nothing_is_merged(tmp_path):
    pytest.importorskip("submitit")
    to = ("--on", "slurm", "--shards", "1", "--job", "cluster=local", "--out", tmp_path / "run")
    done = mixprof("sweep", "--models", "no_such_mixer", *to)
    assert done.returncode == 4
    assert "shard 1/1: " in done.stderr
    assert "no_such_mixer" in done.stderr
    assert not (tmp_path / "run").exists()


def printed(capsys, *arguments):
    assert main.main(["sweep", *map(str, (*AXES, *QUICK, *arguments))]) == 0
    return capsys.readouterr().out


FAKE = '#!/bin/sh\nprintf "%s\\n" "$@"\n'  # stands for the program that the script starts


def started(text, folder, **environment):
    """What a shell that runs a script starts, a word a line."""
    (folder / "mixprof").write_text(FAKE)
    (folder / "mixprof").chmod(stat.S_IRWXU)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", text], env={"PATH": path, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_script_runs_the_shard_of_its_task(capsys, tmp_path):
    out = tmp_path / "my runs" / "all"
    job = "partition=gpu,gres=gpu:1,time=30,parallel=4"
    text = printed(capsys, "--on", "slurm", "--shards", "8", "--job", job, "--print", "--out", out)
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert lines == [
        "#SBATCH --job-name=mixprof", "#SBATCH --array=1-8%4", "#SBATCH --partition=gpu", "#SBATCH --gres=gpu:1",
        "#SBATCH --time=30",
    ]  # fmt: skip
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0
    words = started(text, tmp_path, SLURM_ARRAY_TASK_ID="3")
    folder = str(tmp_path / "my runs" / "all-shards" / "3")
    assert [words[0], *words[-5:]] == ["sweep", "--shard", "3/8", "--out", folder, "--resume"]
    assert sorted(words[1:-5]) == sorted((*AXES, *QUICK))
    assert os.path.isdir(folder)
    exclusive = printed(capsys, "--on", "slurm", "--shards", "8", "--print", "--out", out)
    assert "#SBATCH --exclusive\n" in exclusive  # a CPU is timed: nobody else on the node


@pytest.mark.parametrize("more", ["", ",gpus=1,memory=32Gi,cpus=8,parallel=2,node=accelerator=h100"])
def test_the_manifest_is_valid_and_its_completion_index_is_the_shard(capsys, tmp_path, more):
    validate = pytest.importorskip("kubernetes_validate")
    job = f"image=registry/mixprof:1,claim=runs{more}"
    text = printed(capsys, "--on", "kubernetes", "--shards", "16", "--job", job, "--out", tmp_path / "all")
    manifest = json.loads(text)
    validate.validate(manifest, "1.33", strict=True)
    assert (manifest["spec"]["completions"], manifest["spec"]["completionMode"]) == (16, "Indexed")
    pod = manifest["spec"]["template"]["spec"]
    assert ("affinity" in pod) == (not more)  # a node alone, or a GPU alone
    shell, option, script = pod["containers"][0]["command"]
    assert (shell, option) == ("sh", "-ec")
    for index in (0, 15):
        words = started(script, tmp_path, JOB_COMPLETION_INDEX=str(index))
        assert words[words.index("--shard") + 1] == f"{index + 1}/16"
        assert words[words.index("--out") + 1] == str(tmp_path / "all-shards" / str(index + 1))


def test_shards_at_a_url_need_no_volume(capsys, tmp_path):
    validate = pytest.importorskip("kubernetes_validate")
    to = ("--shards", "3", "--job", "image=i", "--out", "s3://bucket/runs/all")
    manifest = json.loads(printed(capsys, "--on", "kubernetes", *to))
    validate.validate(manifest, "1.33", strict=True)
    pod = manifest["spec"]["template"]["spec"]
    assert "volumes" not in pod
    words = started(pod["containers"][0]["command"][2], tmp_path, JOB_COMPLETION_INDEX="1")
    assert words[words.index("--out") + 1] == "s3://bucket/runs/all-shards/2"
    assert not (tmp_path / "s3:").exists()
    then = manifest["metadata"]["annotations"]["mixprof/then"].split()
    assert then[2:5] == [f"s3://bucket/runs/all-shards/{index}" for index in (1, 2, 3)]
    assert then[5:] == ["--out", "all", "--strict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--on", "slurm", "--out", "run"), "--shards: got none, expected with --on slurm"),
        (("--on", "slurm", "--shards", "0", "--out", "run"), "--shards: got 0"),
        (("--on", "slurm", "--shards", "2"), "without --out"),
        (("--on", "slurm", "--shards", "2", "--job", "partion=x", "--out", "run"), "--job: got 'partion=x', expected"),
        (("--on", "slurm", "--shards", "2", "--job", "time=1h", "--out", "run"), "--job: got 'time=1h'"),
        (("--on", "slurm", "--shards", "2", "--out", "run"), "a machine without sbatch"),
        (("--on", "kubernetes", "--shards", "2", "--out", "/run"), "got no image, expected --job image="),
        (
            ("--on", "kubernetes", "--shards", "2", "--job", "image=i,claim=c", "--out", "run"),
            "expected a URL, or a path below /",
        ),
        (("--shards", "2"), "expected --on slurm or --on kubernetes with it"),
        (("--print",), "expected --on slurm with it"),
    ],
)
def test_a_bad_job_is_one_line(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main.main(["sweep", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_submitit_one_line_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main.main(["sweep", "--on", "slurm", "--shards", "2", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'mixprof[slurm]'" in capsys.readouterr().err
