"""The release gate for scripts: a verdict on a run, with what it rests on."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awqscope.app.notebook.run import Run, find_run
from awqscope.app.terminal.gate import (
    to_json,
    write_context,
    write_lines,
    write_markdown,
    write_sentence,
)
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.own import load_own
from awqscope.diagnose.gate.policy import Policy, load_policy
from awqscope.diagnose.gate.verdict import PASS, GateVerdict, judge_run
from awqscope.diagnose.runs.directory import reads_run

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("Number", "Measured", "95%", "Limit", "Verdict", "")


@dataclass(frozen=True)
class GateResult:
    """What the gate decided of a run. verdict: of `awqscope.diagnose.gate.verdict`, limit by limit
    with its evidence; all else is made of it, and is what `awqscope gate` prints and writes."""

    verdict: GateVerdict

    def __repr__(self) -> str:
        return f"<GateResult {self.verdict.evidence.run}: {write_sentence(self.verdict)}>"

    def _repr_html_(self) -> str:
        """The verdict and its limits as a notebook shows them."""
        cells = [
            (line.title, line.value, line.interval, line.bound, line.outcome, line.note)
            for line in write_lines(self.verdict)
        ]
        head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells
        )
        said = (write_sentence(self.verdict), write_context(self.verdict), *self.verdict.notes)
        return (
            f"<div>{''.join(f'<p>{escape(line)}</p>' for line in said)}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    @property
    def outcome(self) -> str:
        """`pass`, `fail` or `inconclusive`."""
        return self.verdict.outcome

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return self.outcome == PASS

    @property
    def exit_code(self) -> int:
        """Of `awqscope gate`: 0 pass, 1 fail, 3 inconclusive."""
        return self.verdict.exit_code

    @property
    def limits(self) -> "pd.DataFrame":
        """Each limit, decided, by its `name`: `limit`, `verdict`, `value`, `low`, `high`, the text
        or block `of` which the number is, `reason` and `tokens_to_decide`."""
        import pandas as pd

        frame = pd.DataFrame(self.to_json()["limits"]).set_index("name")
        kinds = {**dict.fromkeys(("value", "low", "high"), "float64"), "tokens_to_decide": "Int64"}
        return frame.astype(kinds)

    @property
    def findings(self) -> "pd.DataFrame":
        """All that the gate knows of the run, limited or not, by `measure` and the text or block
        `of` which it is: `value`, `low`, `high`, the `tokens` that it rests on (0 where it is
        exact), and, where there is none, why it is `missing`."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for measure, found in self.verdict.evidence.numbers.items():
            if isinstance(found, Missing):
                rows.append({"measure": measure, "of": "", "missing": found.reason})
                continue
            for each in found:
                told = {name: getattr(each, name) for name in ("of", "value", "low", "high")}
                rows.append({"measure": measure, **told, "tokens": each.tokens, "missing": ""})
        columns = ["measure", "of", "value", "low", "high", "tokens", "missing"]
        frame = pd.DataFrame(rows, columns=columns).astype({"tokens": "Int64"})
        return frame.set_index(["measure", "of"])

    def to_json(self) -> dict[str, Any]:
        """As `awqscope gate --json` writes it."""
        return to_json(self.verdict)

    def to_markdown(self) -> str:
        """As `awqscope gate --markdown` writes it."""
        return write_markdown(self.verdict)


def gate(
    run: Run | Path | str,
    policy: Policy | Path | str | None = None,
    *,
    baseline: Run | Path | str | None = None,
) -> GateResult:
    """Hold a finished run to a policy, as `awqscope gate` does.

    policy: a TOML file, or what `awqscope.load_policy` gives; by default the run's own beside it,
    or else the default policy.
    baseline: a run on the same tokens, for the policy's limits on drift. InputError for a run that
    is not finished or cannot be judged, for a policy that cannot be used, and for a baseline
    without a limit on drift.
    """
    judged = find_run(run).directory
    if policy is None:
        wanted = load_own(judged)
    else:
        wanted = policy if isinstance(policy, Policy) else load_policy(Path(policy))
    against = None if baseline is None else find_run(baseline).directory
    with reads_run(judged.path):
        return GateResult(judge_run(judged, wanted, against))
