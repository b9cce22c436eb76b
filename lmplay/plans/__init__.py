"""Plan files as typed objects: what a model is trained on, in which order and for how long.

Called by the command line, the worker, `lmplay.data` and the workbench; imports neither torch nor numpy.
Both forms of a plan end as the same `Plan`: the full one, and the short one, `{stage: {"dataset", "epochs"}}`.
"""

from lmplay.plans.known import KNOWN_DATASETS, WIKITEXT_TITLE
from lmplay.plans.read import list_plans, load_plan, parse_plan, plans_folder
from lmplay.plans.spec import DatasetSpec, Fields, PackingMode, Plan, SourceKind, Stage, Validation

__all__ = [
    "KNOWN_DATASETS",
    "WIKITEXT_TITLE",
    "DatasetSpec",
    "Fields",
    "PackingMode",
    "Plan",
    "SourceKind",
    "Stage",
    "Validation",
    "list_plans",
    "load_plan",
    "parse_plan",
    "plans_folder",
]
