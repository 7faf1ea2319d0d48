"""What the server of processes (children.py) does before it forks the first: imports, and one short run."""

import importlib
import tempfile

import torch

from children import warm_up
from tiny import tiny

for needed in ("bertlab.api", "bertlab.jobs.report", "hydra_plugins.bertlab_optuna.sweeper", "torch._dynamo"):
    importlib.import_module(needed)
torch.set_num_threads(1)  # forks would lack the others
with tempfile.TemporaryDirectory() as place:
    small = tiny("model=bert_tiny", "budget.steps=2", sizes=(40, 20, 20))
    warm_up(*small, f"paths.output={place}/out", f"paths.cache={place}/cache")
