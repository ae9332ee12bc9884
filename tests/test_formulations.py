"""Formulations: equal in value, chosen by measurement, the same for every launch of a case."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import plain_mixers
from mixprof import lowerings, models
from mixprof.data import choices
from mixprof.data.case import Case
from mixprof.data.pairs import Measured, Paired
from mixprof.data.run_folder import read_records
from mixprof.lowerings import Target
from mixprof.metrics.memory_plan import predict_peak
from mixprof.models import attention, specialization
from mixprof.models import formulations as named
from mixprof.models.specialization import LOWERINGS, formulations_in, parts_of
from mixprof.reports.gate.judge import Judge
from mixprof.worker import choosing

MIXERS = [name for name, entry in models.MODELS.items() if entry.kind == "mixer" and entry.formulations]
FORMULATIONS = [
    (name, one) for name in MIXERS for one in models.MODELS[name].formulations if named.can_run(one, "eager", "cpu")
]


def published_and_input(name: str, seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor]:
    """A mixer in float64 with weights that all matter, and a map that no window divides."""
    torch.manual_seed(seed)
    module = models.build(name, resolution=(9, 13), window=7, channels=64).double()
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.dim() == 1 else torch.randn_like(tensor) / 8)
    return module, torch.randn(2, 9, 13, 64, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "formulation", "lowering"),
    [
        (*one, lowering)
        for one in FORMULATIONS
        for lowering in LOWERINGS[:2]
        if lowering == "eager" or one[0] in plain_mixers.MIXERS
    ],
)
@torch.no_grad()
def test_every_formulation_is_equal_in_value(name, formulation, lowering):
    module, x = published_and_input(name)
    expected = module(x)
    chosen = models.specialize(module, lowering, {"": formulation})
    assert formulations_in(chosen) == [formulation]
    assert (chosen(x) - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("formulation", ["explicit+1x1", "sdpa+cpp", "sdpa", "plain"])
def test_the_option_pins_every_part_of_a_network(formulation):
    network = models.build(f"swin_t:formulation={formulation}", resolution=64, lowering="eager")
    linear = "linear" + specialization.linear_of(formulation)
    assert formulations_in(network) == sorted([formulation, linear])


def test_a_network_offers_its_mixers_and_what_else_has_a_choice():
    parts = parts_of(models.build("dwnet_t", resolution=64))
    kinds = {type(part).__name__ for part in parts.values()}
    assert kinds == {"DepthwiseConv", "Mlp", "PatchMerging"}
    assert len(parts) == 2 * sum((2, 2, 6, 2)) + 3


def test_plain_is_always_among_them():
    assert all(named.PUBLISHED in models.MODELS[name].formulations for name in MIXERS)


# What races: the truth is known because a clock of the test's own goes on with each formulation that runs.


def racing(tolerance: float = 1e-4, device: str = "cpu") -> choosing.Racing:
    case = Case("window_attention", "eager", device, "float32", "channels_last", "hot", 1, (8, 8), 4, 32)
    target = Target(device, "float32", "channels_last", {}, 1, Path(), False, "", "eager")
    return choosing.Racing(case, target, tolerance, "a machine", 1.0)


@pytest.fixture
def part() -> torch.nn.Module:
    return models.build("window_attention", resolution=8, window=4, channels=32)


class Clock:
    """A device without a queue, whose time goes on by what its formulations are made to take."""

    queue = 0

    def __init__(self, monkeypatch, ms: dict[str, float]):
        self.seconds = 0.0
        monkeypatch.setattr(choosing.devices, "of", lambda name: self)
        timed = {*attention.FORMULATIONS, named.PUBLISHED}  # those that go on with this clock
        monkeypatch.setattr(choosing, "can_run", lambda name, *_: specialization.mixing_of(name) in timed)
        for name, of_one in ms.items():
            monkeypatch.setitem(attention.FORMULATIONS, name, self.taking(attention.FORMULATIONS[name], of_one))

    def taking(self, run, ms):
        def taken(*inputs):
            self.seconds += ms / 1000
            return run(*inputs)

        return taken

    def clock(self) -> float:
        return self.seconds

    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize("fastest", ["explicit", "sdpa", "baddbmm"])
@torch.no_grad()
def test_the_fastest_wins(fastest, part, monkeypatch):
    Clock(monkeypatch, {"explicit": 3.0, "sdpa": 3.0, "baddbmm": 3.0, fastest: 2.0})
    choice = choosing.Race(part, (1, 8, 8, 32), racing()).run()
    fast = {fastest + linear for linear in named.LINEARS} | ({"plain"} if fastest == "explicit" else set())
    assert choice.chosen in fast
    assert choice.usual == "baddbmm+1x1"
    assert {choice.usual, "plain", choice.chosen} <= set(choice.ms)
    assert choice.ms == pytest.approx({name: 2.0 if name in fast else 3.0 for name in choice.ms})


@torch.no_grad()
def test_the_usual_one_stays_unless_another_is_clearly_faster(part, monkeypatch):
    Clock(monkeypatch, {"explicit": 1.98, "sdpa": 2.0, "baddbmm": 2.0})
    assert choosing.Race(part, (1, 8, 8, 32), racing()).run().chosen == "baddbmm+1x1"


@torch.no_grad()
@pytest.mark.parametrize(("lost", "chosen"), [(0.05, "sdpa"), (0.5, "baddbmm+1x1")])
def test_where_others_took_the_cpu_the_usual_one_stays(lost, chosen, part, monkeypatch, tmp_path):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choosing.cpu_contention, "lost_share", lambda before, after: lost)
    Clock(monkeypatch, {"explicit": 3.0, "sdpa": 2.0, "baddbmm": 3.0})
    choice = choosing._raced(part, (1, 8, 8, 32), dataclasses.replace(racing(), most_lost=0.1), "key")
    assert choice.chosen.startswith(chosen)
    assert choice == choices.recall("key")
    assert (choice.lost_cpu_share, min(choice.ms.values())) == (lost, pytest.approx(2.0))


@torch.no_grad()
def test_what_computes_something_else_is_no_rival(part, monkeypatch):
    Clock(monkeypatch, {"explicit": 3.0, "sdpa": 2.0, "baddbmm": 3.0})
    right = attention.FORMULATIONS["sdpa"]
    monkeypatch.setitem(attention.FORMULATIONS, "sdpa", lambda *inputs: 1.1 * right(*inputs))
    choice = choosing.Race(part, (1, 8, 8, 32), racing()).run()
    assert not choice.chosen.startswith("sdpa")
    assert [name for name, why in choice.refused.items() if "differs" in why] in (["sdpa"], ["sdpa+1x1"])


def test_a_choice_does_not_travel_to_another_device(part):
    keys = {choosing._key(part, (1, 8, 8, 32), racing(device=device)) for device in ("cpu", "cuda:0", "sim:0")}
    assert len(keys) == 3


def test_of_processes_that_choose_at_once_the_first_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    code = (
        "import sys; from mixprof.data.choices import *; "
        "print(keep('key', Choice('Part', (1,), sys.argv[1], 'usual', {})).chosen)"
    )
    every = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    kept = {process.communicate()[0].strip() for process in every}
    choice = choices.recall("key")
    assert choice is not None
    assert kept == {choice.chosen}
    assert [path.name for path in (tmp_path / "cache" / "choices").iterdir()] == ["key.json"]


def test_a_damaged_choice_is_measured_again_and_another_s_folder_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXPROF_CACHE", str(tmp_path / "cache"))
    choice = choices.Choice("Part", (1,), "a", "a", {"a": 1.0})
    choices.keep("key", choice)
    path = tmp_path / "cache" / "choices" / "key.json"
    path.write_text(path.read_text()[:-9])
    assert choices.recall("key") is None
    assert choices.keep("key", choice) == choices.recall("key") == choice
    path.parent.chmod(0o777)
    assert choices.recall("key") is None


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A sweep with two launches a case, of which one leaves the choice to measurement."""
    folder = tmp_path_factory.mktemp("chosen")
    names = "window_attention,window_attention:attention=sdpa,window_attention:formulation=plain,spatial_mlp"
    axes = f"--models {names} --resolutions 8 --windows 4 --channels 32 --devices cpu"
    measuring = "--threads 1 --seconds 0.05 --quick --launches 2 --max-lost-cpu 1 --out run"
    command = [sys.executable, "-m", "mixprof", "sweep", *axes.split(), *measuring.split()]
    environment = {**os.environ, "MIXPROF_CACHE": str(folder / "cache")}
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / "run"


@pytest.mark.slow
def test_every_launch_of_a_case_runs_what_was_chosen(run):
    records: dict[str, Any] = {record.case.model: record for record in read_records(run)}
    chosen = records["window_attention"]
    (choice,) = chosen.proof["choices"]
    assert chosen.status == "ok"
    assert [launch.proof["formulation"] for launch in chosen.launches] == 2 * [[choice["chosen"]]]
    assert {choice["usual"], choice["chosen"], "plain"} <= set(choice["ms"])
    (offered,) = records["window_attention:attention=sdpa"].proof["choices"]
    assert set(offered["ms"]) == {"sdpa" + linear for linear in named.LINEARS}
    assert records["window_attention:formulation=plain"].proof["formulation"] == ["plain"]
    assert all("choices" not in records[name].proof for name in ("window_attention:formulation=plain", "spatial_mlp"))


@pytest.mark.slow
def test_choices_are_kept_for_the_next_run(run):
    assert len(list((run.parent / "cache" / "choices").iterdir())) == 2


def test_sides_that_ran_different_formulations_are_said_to():
    case = Case("swin_t", "eager", "cpu", "float32", "channels_last", "hot", 1, (224, 224), 7, None)
    proofs = {"base": {"formulation": ["sdpa"]}, "head": {"formulation": ["plain"]}}
    pairs = [Paired(case, case, case, differences=[0.0, 0.0], proofs=proofs)]
    (note,) = Judge().conclude(Measured("a", "b", pairs)).notes
    assert "BASE ran sdpa, HEAD plain" in note
    pairs[0].proofs = {side: {"formulation": ["sdpa"]} for side in proofs}
    assert not Judge().conclude(Measured("a", "b", pairs)).notes


@torch.no_grad()
def test_on_a_simulated_gpu_the_choice_is_that_of_the_known_truth(part):
    race = choosing.Race(part, (1, 8, 8, 32), racing(tolerance=5e-3, device="sim:0"))
    choice = race.run()
    truth = {name: race._lowered(name)[1].proof["simulated"]["truth"]["hot"]["gpu_ms"] for name in choice.ms}
    assert choice.ms == pytest.approx(truth, rel=0.05)
    assert truth[choice.chosen] == min(truth.values())


@pytest.mark.slow
def test_memory_is_predicted_of_the_formulation_that_runs(run):
    chosen: Any
    (chosen,) = [record for record in read_records(run) if record.case.model == "window_attention"]
    name = f"window_attention:formulation={chosen.proof['choices'][0]['chosen']}"
    module = models.build(name, resolution=8, window=4, channels=32, lowering="eager")
    assert chosen.memory.predicted_peak_bytes == predict_peak(module, torch.randn(1, 8, 8, 32))


@pytest.mark.parametrize("batch", [2, 3, 5])
@torch.no_grad()
def test_no_right_formulation_is_refused_at_any_batch(batch, part):
    choice = choosing.Race(part, (batch, 8, 8, 32), racing()).run()
    assert not [why for why in choice.refused.values() if "differs" in why]
    assert "plain" in choice.ms


@pytest.mark.parametrize("name", ["swin_t", "dwnet_t", "dynamic_dwnet_t", "i_dynamic_dwnet_t", "vit_s"])
def test_every_part_of_a_network_has_a_key_of_its_own_work(name):
    with torch.device("meta"):
        network = models.build(name, resolution=224)
    shapes = choosing.input_shapes(network, lambda: network(torch.empty(1, 3, 224, 224, device="meta")))
    parts = specialization.parts_of(network)
    keys = {choosing._key(part, shapes[path], racing()) for path, part in parts.items()}
    assert 1 < len(keys) < len(parts)  # blocks of a stage share theirs


@pytest.mark.parametrize("lowering", ["aot", "onnxruntime", "openvino"])
def test_no_kernel_of_ours_races_for_a_graph(lowering):
    assert lowerings.LOWERINGS[lowering].chooses
    names = {one for name in MIXERS for one in models.MODELS[name].formulations if named.can_run(one, lowering, "cpu")}
    assert {"plain", "sdpa+1x1"} < names
    assert not [one for one in names if {"cpp", "triton"} & set(one.split("+"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lowering", "names", "raced_in"),
    [
        ("onnxruntime", "depthwise_conv,window_attention", None),
        pytest.param("openvino", "depthwise_conv,window_attention", None, marks=pytest.mark.long),
        pytest.param("aot", "pointwise_conv", "compile", marks=pytest.mark.long),
    ],
)
def test_formulations_race_in(lowering, names, raced_in, tmp_path):
    axes = f"--models {names} --resolutions 14 --lowerings {lowering} --devices cpu"
    measuring = "--quick --launches 1 --max-lost-cpu 1 --out run"
    command = [sys.executable, "-m", "mixprof", "sweep", *axes.split(), *measuring.split()]
    environment = {
        **os.environ,
        "MIXPROF_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
    }
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for record in read_records(tmp_path / "run"):
        proof: Any = record.proof or {}
        assert "choice_failed" not in proof
        if record.case.is_anchor:
            continue
        (choice,) = proof["choices"]
        assert {choice["usual"], choice["chosen"], "plain"} <= set(choice["ms"])
        assert not choice["refused"]
        assert choice["raced_in"] == raced_in
        assert proof["formulation"] == [choice["chosen"]]
