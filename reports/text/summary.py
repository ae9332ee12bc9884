"""summary.md: who wins where, every case with its interval, every failure with its reason, how it was measured."""

from pathlib import Path

from mixprof.reports.answers import Answers
from mixprof.reports.frame import load
from mixprof.reports.text.deployment import what_each_gives
from mixprof.reports.text.engines import breakdown, built, proof_of_lowering
from mixprof.reports.text.fleet import fleet
from mixprof.reports.text.growth import crossings, growth
from mixprof.reports.text.layouts import layouts
from mixprof.reports.text.markdown import ORDER, Section, number, of_floor, plain_table, words
from mixprof.reports.text.measurements import SIMULATED, counts_in_words, failures, latency_text, measurements, varying
from mixprof.reports.text.method import Manifests, environment, method
from mixprof.reports.text.missing import not_measured
from mixprof.reports.text.mixer_exchange import mixer_exchange
from mixprof.reports.text.observed import what_ran, what_the_gpu_did
from mixprof.reports.text.roofline import predicted_memory, roofline
from mixprof.reports.text.training import training
from mixprof.reports.text.verdict import every_ratio, verdict


def summary(answers: Answers, manifests: Manifests) -> str:
    """The report as Markdown. manifests: that of each run by its name."""
    sections = [*first(answers, manifests), *measurements(answers), *failures(answers), *details(answers, manifests)]
    title = f"# mixprof: {', '.join(manifests) or 'no run'}"
    parts = [title, counts_in_words(answers.cases), *(section.markdown() for section in sections)]
    return "\n\n".join(parts) + "\n"


def first(answers: Answers, manifests: Manifests) -> list[Section]:
    """The sections that a reader wants first: the verdict, its limits, mixers exchanged, engines, training."""
    return [
        *verdict(answers),
        *not_measured(answers, manifests),
        *fleet(answers, manifests),
        *mixer_exchange(answers),
        *layouts(answers),
        *what_each_gives(answers),
        *training(answers),
    ]


def details(answers: Answers, manifests: Manifests) -> list[Section]:
    """The numbers behind the verdict, and how and where they were measured."""
    proofs = (proof_of_lowering, what_ran, what_the_gpu_did)
    of_answers = (built, every_ratio, growth, crossings, *proofs, roofline, breakdown, predicted_memory)
    sections = [section for write in of_answers for section in write(answers)]
    return [*sections, *method(answers, manifests), *environment(manifests)]


def short(run: str | Path) -> str:
    """One plain-text table of a run for the terminal: a line a case, its latency or why there is none."""
    frame = load(run)
    if frame.empty:
        return counts_in_words(frame)
    names = ["model", "lowering", "device", *varying(frame)[2:]]
    simulated = f"{SIMULATED}\n".replace("**", "").replace("`", "") if frame["simulated"].any() else ""
    return simulated + plain_table(
        {
            **{name: words(row[name]) for name in dict.fromkeys(names)},
            "latency (ms)": latency_text(row),
            "of floor": of_floor(row["attainable_share"]),
            "images/s": number(row["images_per_s"]),
            "status": row["status"] + (f": {row['reason']}" if row["reason"] else ""),
        }
        for _, row in frame.sort_values(ORDER).iterrows()
    )
