"""The report of the gate: lines to print, and annotations of a pull request."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the gate's report. `fail` turns the gate red, `warn` does not. file: the golden file."""

    level: Literal["fail", "warn"]
    golden: str
    message: str
    file: Path | None = None


@dataclass(frozen=True)
class CheckedGolden:
    """One golden file that was compared."""

    golden: str
    images: int
    metrics: int
    seconds: float


@dataclass
class GateReport:
    """Golden files that were compared, findings about them, and golden files that were written anew."""

    checked: list[CheckedGolden] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    accepted: list[Path] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a finding turns the gate red; the command then ends with exit code 1."""
        return any(finding.level == "fail" for finding in self.findings)

    def lines(self) -> list[str]:
        """The report to print: one line for each golden file, one for each finding, one verdict."""
        out = []
        for file in self.checked:
            findings = [finding for finding in self.findings if finding.golden == file.golden]
            failed = any(finding.level == "fail" for finding in findings)
            word = "FAIL" if failed else "warn" if findings else "ok  "
            out.append(f"{word}  {file.golden}: {file.metrics} metrics on {file.images} images, {file.seconds:.1f} s")
            out += [f"      {finding.level}: {finding.message}" for finding in findings]
        out += [f"accepted: {path}" for path in self.accepted]
        verdict = "red: regression" if self.failed else "accepted" if self.accepted else "green: no regression"
        count = len(self.checked) or len(self.accepted)  # a first golden file is accepted without being compared
        return [*out, f"{verdict} ({count} golden file{'' if count == 1 else 's'})"]

    def annotations(self) -> list[str]:
        """Findings as GitHub's workflow commands, which mark the golden file in the pull request."""
        return [
            f"::{'error' if finding.level == 'fail' else 'warning'} "
            f"file={_escaped(str(finding.file or finding.golden))},"
            f"title={_escaped(finding.golden)}::{_escaped(finding.message, data=True)}"
            for finding in self.findings
        ]


def _escaped(text: str, *, data: bool = False) -> str:
    """Escape text as GitHub's toolkit does for a workflow command. data: the message; else a property (`file`)."""
    # "%" has to come first: the codes of the others begin with it. In a property ":" and "," would end the value.
    for character, code in (
        ("%", "%25"),
        ("\r", "%0D"),
        ("\n", "%0A"),
        *(() if data else ((":", "%3A"), (",", "%2C"))),
    ):
        text = text.replace(character, code)
    return text
