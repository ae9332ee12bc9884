"""What a GPU's record holds reaches frame, CSV and report: records written by hand, which no GPU has made."""

import dataclasses
import json

import pandas as pd
import pytest

from mixprof import reports
from mixprof.data.json import to_builtins
from mixprof.data.launch import Energy, LaunchEnvironment, Memory
from mixprof.data.ran import Kernel, Ran
from mixprof.reports.answers import answers
from mixprof.reports.export import write_report
from mixprof.reports.text.observed import what_ran, what_the_gpu_did
from synthetic_runs import case, ok, write_run

MIB = 2**20
RAN = Ran(
    "kernels", 7, 40.0, (Kernel("flash_fwd_kernel", 1, 30.0, 0.75),), ("flash",), ("cuDNN",), ("cuBLAS",), True, 2, 0.1,
    {"mixer": 0.9, "mlp": 0.1},
)  # fmt: skip


def clocks(middle: float, **more: float) -> dict[str, object]:
    quantiles = [middle - 20, middle - 10, middle, middle + 10, middle + 20]
    return {"sm_clock_mhz": [middle - 30, middle + 30], "sm_clock_quantiles_mhz": quantiles, **more}


@pytest.fixture
def run(tmp_path):
    """A run with one record of a GPU, two launches, and one of a CPU."""
    memory = Memory(
        4 * MIB, 512 * MIB, cuda_allocated_bytes=6 * MIB, cuda_reserved_bytes=22 * MIB, cuda_graph_pool_bytes=2 * MIB
    )
    record = ok(case(device="cuda:0"), [1.0, 1.1], proof={"ran": to_builtins(RAN), "choices": [{"part": "A"}]})
    readings = [
        clocks(1400, temperature_c=60, power_w=300.0, power_capped_share=0.0, energy_j=60.0, energy_s=0.3),
        clocks(1300, temperature_c=65, power_w=320.0, power_capped_share=0.5, energy_j=90.0, energy_s=0.2),
    ]
    launches = tuple(
        dataclasses.replace(launch, environment=LaunchEnvironment(clocks=read))
        for launch, read in zip(record.launches, readings, strict=True)
    )
    energy = Energy(joules_per_image=0.25, window_s=3.0, source="nvml")
    record = dataclasses.replace(record, memory=memory, energy=energy, launches=launches)
    return write_run(tmp_path / "run", [record, ok(case("conv"), [1.0, 1.0])])


EXPECTED = {
    "cuda_allocated_bytes": 6 * MIB, "cuda_reserved_bytes": 22 * MIB, "cuda_graph_pool_bytes": 2 * MIB,
    "sm_clock_mhz": 1350, "sm_clock_low_mhz": 1270, "sm_clock_high_mhz": 1430, "power_capped_share": 0.5,
    "temperature_c": 65, "power_w": 320, "energy_w": 300, "joules_per_image": 0.25,
    "attention_kernel": "flash", "convolution_kernel": "cuDNN", "product_kernel": "cuBLAS", "ran_tf32": True,
    "ran_launches": 7, "transposes_share": 0.1, "longest_kernel": "flash_fwd_kernel", "longest_kernel_share": 0.75,
}  # fmt: skip


def test_frame_and_csv_hold_what_was_observed_and_nothing_that_was_not(run, tmp_path):
    write_report([run], tmp_path / "report")
    for frame in (reports.load(run), pd.read_csv(tmp_path / "report" / "results.csv")):
        gpu, cpu = (frame[frame["device"] == device].iloc[0] for device in ("cuda:0", "cpu"))
        assert {name: gpu[name] for name in EXPECTED} == EXPECTED
        assert json.loads(gpu["role_shares"]) == {"mixer": 0.9, "mlp": 0.1}
        assert json.loads(gpu["choices"]) == [{"part": "A"}]
        assert cpu[[*EXPECTED, "role_shares", "choices"]].isna().all()


def test_the_report_has_a_table_of_each(run):
    known = answers(reports.load(run))
    (ran,), (gpu,) = what_ran(known), what_the_gpu_did(known)
    ((row,),) = [table.rows for table in ran.tables()]
    assert (row["attention"], row["convolution"], row["TF32"], row["layout copies"]) == ("flash", "cuDNN", "yes", "10%")
    assert (row["longest"], row["by role"]) == ("flash_fwd_kernel (75%)", "mixer 90%, mlp 10%")
    ((row,),) = [table.rows for table in gpu.tables()]
    assert (row["reserved (MiB)"], row["graph pool (MiB)"], row["J/image"]) == ("22", "2", "0.25")
    assert row["SM clock (MHz)"] == "1,350 (1,270 to 1,430)"


def test_a_cpu_has_neither_table(tmp_path):
    known = answers(reports.load(write_run(tmp_path / "run", [ok(case(), [1.0, 1.0])])))
    assert not what_ran(known)
    assert not what_the_gpu_did(known)
