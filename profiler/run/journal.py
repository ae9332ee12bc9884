"""The journal of a run: its launches and records so far. An added launch is on disk when the call returns."""

from dataclasses import dataclass
from pathlib import Path

from mixprof import lowerings
from mixprof.data import run_folder
from mixprof.data.case import Case
from mixprof.data.launch import Launch
from mixprof.data.record import assemble, with_layers


@dataclass
class Journal:
    """The cases that have their record, and of the others the launches so far."""

    run: Path
    rounds: int
    launches: dict[Case, list[Launch]]
    recorded: set[Case]
    layers: bool = False  # what was timed and has layers gets one more launch, for these, before its record

    @classmethod
    def open(cls, run: Path, rounds: int, layers: bool = False) -> "Journal":
        """Go on with a run folder, which may be empty."""
        recorded = {record.case for record in run_folder.read_records(run)}
        launches: dict[Case, list[Launch]] = {}
        for case, launch in run_folder.read_launches(run):
            if case not in recorded:
                launches.setdefault(case, []).append(launch)
        return cls(run, rounds, launches, recorded, layers)

    def add(self, case: Case, launch: Launch) -> None:
        """Write a launch that ended, and the case's record if it was the last."""
        try:
            run_folder.append_launch(self.run, case, launch)
        except ValueError as error:  # NaN or infinity, which JSON has not
            launch = Launch("crashed", f"a measured value cannot be written: {error}", round=launch.round)
            run_folder.append_launch(self.run, case, launch)
        self.launches.setdefault(case, []).append(launch)
        self.close(case)

    def close(self, case: Case) -> None:
        """Write the case's record if its last launch is in: the last round's, its layers', or one that is not ok."""
        launches = self.launches.get(case, [])
        timed, profiled = ([one for one in launches if (one.round >= self.rounds) == after] for after in (False, True))
        if case in self.recorded or not timed:
            return
        if timed[-1].status == "ok" and (len(timed) < self.rounds or (self._has_layers(case) and not profiled)):
            return
        run_folder.append_record(self.run, with_layers(assemble(case, timed), profiled))
        self.recorded.add(case)
        del self.launches[case]

    def is_due(self, case: Case, round: int) -> bool:
        """Whether a case has no launch of this round yet, and needs one."""
        return case not in self.recorded and len(self.launches.get(case, [])) <= round

    def remaining(self, case: Case) -> tuple[int, ...]:
        """The rounds of the launches that a case still needs while all of these are ok."""
        if case in self.recorded:
            return ()
        timed = sum(launch.round < self.rounds for launch in self.launches.get(case, []))
        return (*range(timed, self.rounds), *([self.rounds] if self._has_layers(case) else []))

    def lacks_layers(self, case: Case) -> bool:
        """Whether all that is left of a case is the launch that times its layers."""
        done = self.launches.get(case, [])
        return case not in self.recorded and self._has_layers(case) and len(done) == self.rounds

    def _has_layers(self, case: Case) -> bool:
        return self.layers and lowerings.layers_of(case.lowering) is not None
