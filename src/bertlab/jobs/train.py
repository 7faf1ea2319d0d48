"""`bertlab train`: train a model, or continue or skip a run that is already there (the job if none is named)

usage: bertlab [train] [group=option ...] [key=value ...] [-m]

Train a BERT-style encoder. Every choice is a group or a key; what you leave out has a default (see --cfg job).
"""

from bertlab.config.registry import Job
from bertlab.config.schema import Train
from bertlab.runs.outcome import Context, announce
from bertlab.training.lifecycle import train


def run(config: Train, context: Context) -> list[float]:
    """Train and tell the result; returns the primary metric on validation, or the scores that a sweep asks
    for instead.
    """
    outcome = train(config, context)
    if context.trial is not None:
        context.trial.note("run", str(outcome.folder))
        context.trial.note(
            "metric", " ".join(context.trial.objectives) or str(outcome.summary["selected_by"])
        )
    announce(outcome, in_a_line=context.in_grid)
    return outcome.scores(context.trial.objectives if context.trial else [])


JOB = Job(Train, run, has_score=True)
