"""Axes and sweep files to cases."""

import pytest

from mixprof.data.errors import UsageError
from mixprof.plan import axes, settings, sweep_file
from mixprof.plan.axes import Source
from mixprof.plan.settings import Axes, Measure

MIXER = Source("m:f", {}, ("resolution", "window", "channels"), "mixer")
NETWORK = Source("m:n", {}, ("resolution", "window"), "network")
PLAIN = Source("m:p", {}, ("resolution",), "network")


def odd(resolution, window, channels):
    return None if window % 2 else f"got window={window}, expected an odd one"


SOURCES = {
    "mixer": MIXER,
    "network": NETWORK,
    "plain": PLAIN,
    "odd": Source("m:o", {}, ("window", "channels"), "mixer", check=odd),
}


def expand(*groups, devices=("cpu",)):
    return [entry.case for entry in axes.expand(groups, SOURCES.__getitem__, devices)]


def test_a_group_is_a_product_in_the_order_given():
    cases = expand(Axes(models=("mixer",), batches=(1, 8), windows=(3, 7)))
    assert [(case.batch, case.window) for case in cases] == [(1, 3), (1, 7), (8, 3), (8, 7)]


def test_defaults_follow_the_kind_and_the_device():
    mixer, network = expand(Axes(models=("mixer", "network")))
    assert (mixer.resolution, mixer.channels, mixer.dtype, mixer.layout) == ((56, 56), 96, "float32", "channels_last")
    assert (network.resolution, network.channels, network.window) == ((224, 224), None, 7)
    on_gpu = expand(Axes(models=("mixer",)), devices=("cpu", "cuda:1", "cuda:0"))
    assert {(case.device, case.dtype) for case in on_gpu} == {("cuda:0", "float16")}
    assert [case.layout for case in on_gpu] == ["channels_last", "contiguous"]  # which is faster there, nobody has seen


def test_an_axis_that_a_model_has_not_collapses():
    cases = expand(Axes(models=("plain",), windows=(3, 5, 7), channels=(32, 64)))
    assert [(case.window, case.channels) for case in cases] == [(None, None)]


def test_a_graph_runtime_has_one_layout():
    cases = expand(Axes(models=("mixer",), lowerings=("eager", "onnxruntime"), layouts=("contiguous", "channels_last")))
    assert [(case.lowering, case.layout) for case in cases] == [
        ("eager", "contiguous"),
        ("eager", "channels_last"),
        ("onnxruntime", "contiguous"),
    ]


def test_groups_share_cases_once():
    assert len(expand(Axes(models=("mixer",), windows=(3, 7)), Axes(models=("mixer",), windows=(7, 9)))) == 3


def test_impossible_cases_keep_their_reason_while_one_is_possible():
    entries = axes.expand([Axes(models=("odd",), windows=(4, 7))], SOURCES.__getitem__, ["cpu"])
    assert [entry.reason for entry in entries] == ["got window=4, expected an odd one", None]
    with pytest.raises(UsageError, match="no valid case is left: got window=4"):
        expand(Axes(models=("odd",), windows=(4, 6)))


@pytest.mark.parametrize(
    ("axis", "value", "expected"),
    [
        ("resolutions", "224,800x1333", ((224, 224), (800, 1333))),
        ("resolutions", [56, "28x14", [7, 9]], ((56, 56), (28, 14), (7, 9))),
        ("batches", "1, 64", (1, 64)),
        ("batches", 8, (8,)),
        ("dtypes", "tf32", ("tf32",)),
        ("devices", "cpu,cuda:3", ("cpu", "cuda:3")),
    ],
)
def test_axes_are_read(axis, value, expected):
    assert settings.parse_axis(axis, value, "--axis") == expected


@pytest.mark.parametrize(
    ("axis", "value"),
    [("batches", "0"), ("batches", "-1"), ("batches", "1.5"), ("batches", ""), ("batches", True), ("batches", []),
     ("resolutions", "0"), ("resolutions", "2x"), ("resolutions", "axb"), ("dtypes", "fp16"), ("devices", "gpu"),
     ("layouts", "nhwc"), ("modes", "warm"), ("windows", "7;9"), ("models", "a,,b")],
)  # fmt: skip
def test_a_bad_value_is_one_line_that_names_it(axis, value):
    with pytest.raises(UsageError, match=r"--axis: got .*, expected ") as error:
        settings.parse_axis(axis, value, "--axis")
    assert "\n" not in str(error.value)


FILE = """
[measure]
launches = 2
quick = true

[[group]]
models = ["mixer", "odd"]
windows = [3, 7]

[[group]]
models = "network"
resolutions = "64,128x96"
"""


def test_a_sweep_file_is_groups_and_settings(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(FILE)
    groups, measure = sweep_file.read_sweep(path, {"batches": (4,)})
    assert measure == Measure(launches=2, quick=True)
    assert groups == [
        Axes(models=("mixer", "odd"), windows=(3, 7), batches=(4,)),
        Axes(models=("network",), resolutions=((64, 64), (128, 96)), batches=(4,)),
    ]


@pytest.mark.parametrize(
    ("broken", "line", "said"),
    [
        ("windows = [3, 7]", "window = [3, 7]", "sweep.toml:8: got key 'window', expected windows"),
        ("launches = 2", "lanches = 2", "sweep.toml:3: got key 'lanches', expected launches"),
        ("launches = 2", "launches = 0", "sweep.toml:3: launches: got 0, expected"),
        ("windows = [3, 7]", "windows = [3, 0]", "sweep.toml:8: windows: got 0, expected"),
        ("[measure]", "[measures]", "sweep.toml:2: got key 'measures', expected measure"),
        ("quick = true", "quick = 1", "sweep.toml:4: quick: got 1, expected true or false"),
        ("quick = true", "quick = yes", "invalid TOML"),
    ],
)
def test_a_broken_sweep_file_names_file_line_key_and_the_nearest_key(tmp_path, broken, line, said):
    path = tmp_path / "sweep.toml"
    path.write_text(FILE.replace(broken, line))
    with pytest.raises(UsageError) as error:
        sweep_file.read_sweep(path, {})
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_rounds_follow_the_settings():
    assert [Measure().rounds, Measure(quick=True).rounds, Measure(publication=True).rounds] == [3, 1, 8]
    assert Measure(launches=5, quick=True).rounds == 5


@pytest.mark.parametrize("name", ["depthwise_conv:formulation=conv+cpp", "swin_t:attention=cpp"])
def test_a_kernel_of_ours_in_a_graph_is_refused_where_the_sweep_is_read(name):
    with pytest.raises(UsageError, match=r"'aot', expected eager or compile: no graph holds our kernels$"):
        sweep_file.read(None, {"models": name, "lowerings": "aot,onnxruntime,openvino,tensorrt:opt=3"}, str)
    groups, _ = sweep_file.read(None, {"models": name, "lowerings": "eager,aot"}, str)
    entries = axes.expand(groups, lambda name: MIXER, ["cpu"])
    assert [entry.case.lowering for entry in entries if entry.reason is None] == ["eager"]


@pytest.mark.parametrize(
    ("name", "step", "device", "reason"),
    [
        ("depthwise_conv:formulation=triton", "inference", "cpu", "on cpu, expected a CUDA device"),
        ("depthwise_conv:formulation=cpp", "inference", "cuda:0", "on cuda:0, expected cpu"),
        ("swin_t:formulation=sdpa+1x1", "train", "cpu", "with --steps train, expected one without"),
        ("swin_t:formulation=sdpa", "train", "cpu", None),
        ("package.module:factory:formulation=cpp", "inference", "cuda:0", None),
    ],
)
def test_a_formulation_that_cannot_run_there_is_no_case(name, step, device, reason):
    group = Axes(models=(name, "swin_t"), devices=(device,), steps=(step,))
    pinned, _ = axes.expand([group, Axes(models=(name,), devices=("cpu", "cuda:0"))], lambda name: MIXER, [device])[:2]
    assert pinned.reason is None if reason is None else reason in str(pinned.reason)
