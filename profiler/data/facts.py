"""Facts of models and lowerings, as the manifest of a run has them; frozen ones for runs that are older than these."""

import json
from functools import lru_cache
from importlib import resources

from mixprof.data.json import Json
from mixprof.data.manifest import Manifest
from mixprof.data.record import Record


@lru_cache(maxsize=1)
def _before() -> dict[str, dict[str, Json]]:
    """The facts at the time when manifests had none."""
    text = resources.files("mixprof.data").joinpath("facts_before.json").read_text(encoding="utf-8")
    facts: dict[str, dict[str, Json]] = json.loads(text)
    return facts


def model_facts(manifest: Manifest, model: str) -> Json:
    """The facts of a model of a run: see mixprof.models.facts; empty for a user's own."""
    if manifest.models is not None:
        return manifest.models.get(model) or {}
    known = _before()["models"]
    base, *options = model.split(":")
    if model in known or base not in known:
        return known.get(model, {})
    mixer = next((option.removeprefix("mixer=") for option in options if option.startswith("mixer=")), None)
    plain = known.get(mixer or base, {}).get("plain_formulations", {})
    changed = {"published": None, "compared_with": {}, "plain_formulations": plain}
    return {**known[base], **changed, **({"mixer": mixer} if mixer else {})}


def lowering_facts(manifest: Manifest) -> dict[str, Json]:
    """The facts of every lowering that there was when a run was made: see mixprof.lowerings.facts."""
    return manifest.lowerings or _before()["lowerings"]


def record_facts(record: Record, manifest: Manifest) -> Json:
    """The facts of a record's model that matter to it. The published accuracy is at 224x224 and window 7."""
    case, facts = record.case, model_facts(manifest, record.case.model)
    published = facts.get("published") if (case.resolution, case.window) == ((224, 224), 7) else None
    plain = facts.get("plain_formulations") or {}
    fuses = (lowering_facts(manifest).get(case.lowering.split(":")[0]) or {}).get("fuses", True)
    ran = [how.partition("+")[0] for how in (record.proof or {}).get("formulation") or ()]
    return {
        **{name: facts.get(name) for name in ("own_mixer", "mixer")},
        "compared_with": json.dumps(facts["compared_with"]) if facts.get("compared_with") else None,
        "top1_percent": (published or {}).get("top1_percent"),
        "plain": "; ".join(dict.fromkeys(plain[how] for how in ran if how in plain and not fuses)) or None,
    }
