"""Home of the experiments: one folder each, with `model.py` and `versions.py`."""

from lmplay.base.prepared_versions import prepare_versions_below

prepare_versions_below(__name__)
