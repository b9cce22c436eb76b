"""The questions that every model is asked before it is trained. A library; `lmplay check` and the tests call it.

>>> subject = Subject(get_runner("gpt2ish"), tiny=True)
>>> for result in run_checks(subject): print(result.name, result.ok, result.evidence)
"""

from lmplay.checks.all_checks import CHECKS, Report, run_checks
from lmplay.checks.result import CheckResult, Gradient
from lmplay.checks.subject import Subject

__all__ = ["CHECKS", "CheckResult", "Gradient", "Report", "Subject", "run_checks"]
