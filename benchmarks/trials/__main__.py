"""One trial as a program: a request as JSON on standard input, the result as JSON on standard output."""

from __future__ import annotations

from benchmarks.cell import serve
from benchmarks.results import Trial
from benchmarks.trials import TrialRequest
from benchmarks.trials.alone import BY_NAME as ALONE
from benchmarks.trials.keeping import BY_NAME as KEEPING


def measure(request: TrialRequest) -> Trial:
    """The trial that a request asks for."""
    return {**KEEPING, **ALONE}[request.trial](request)


if __name__ == "__main__":
    serve(measure, TrialRequest)
