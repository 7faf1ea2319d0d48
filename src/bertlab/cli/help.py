"""`bertlab --help`, written for people and answered without importing torch, Hydra or any dataset; of words,
what the schema says.
"""

from collections.abc import Sequence

from bertlab.config import registry

TRAIN_EXAMPLES = """examples
  bertlab                                              the embedded dataset, no network, under two minutes
  bertlab dataset=sst2 model=bert_mini budget.epochs=3 optimizer.lr=3e-4
  bertlab experiment=bertsst2 seed=1                   a recipe from conf/experiment, another seed
  bertlab -m experiment=bertsst2 'seed=range(5)'       five runs; finished ones are skipped, torn ones continued
  bertlab dataset=imdb_text tokenizer=wordpiece objective=mlm model=bert_mini budget.tokens=5e6     pretraining
  bertlab -m search=lr_batch dataset=sst2 hydra/launcher=cores      a search with Optuna; runs side by side
  bertlab -m 'seed=range(5)' dataset=sst2 init=stage init.dataset=imdb_text init.budget.tokens=5e6  pretrain once, fine-tune five times
  bertlab dataset=files dataset.train_file=reviews.csv dataset.text_column=review dataset.label_column=stars

often used keys
  seed=0   dataset.fraction=0.1   budget.epochs|steps|tokens|examples|hours=…   budget.batch_size=32   optimizer.lr=…
  finetune.layer_lr_decay=0.8   init.objective=… init.budget.…=… (the pretraining of init=stage)
  objective.max_length=128   evaluation.every_steps=…   evaluation.patience=…   paths.output=multirun   paths.mirror=…"""
ASK = """to look something up
  bertlab help objective=mlm      an option: what it reads and scores by, its keys     bertlab help optimizer.lr      a key
  bertlab help dropout            every key that speaks of it                          bertlab help report            a job's keys
  bertlab list datasets           a group's options, each with what it is              bertlab list runs              runs and scores"""
FLAGS = """flags
  -m, --multirun      one run for each combination of comma-separated values
  --cfg job           print the composed config and stop          --info defaults   where each part came from
  --config-dir DIR    a further folder of presets                 -sc install=bash  tab completion (zsh and fish too)
  --dry-run           list the runs and what they would take       --version         the version
  --hydra-help        Hydra's own flags

environment
  BERTLAB_DATA        folder with local copies of datasets, e.g. sst2/train.parquet (also paths.mirror)
  BERTLAB_CACHE       tokenizers and tokenised data (default ~/.cache/bertlab)
  BERTLAB_PROGRESS    seconds until what takes long is told, and told again, without a terminal (default 5,30), or off
  BERTLAB_PLUGINS     folders with components and presets of your own: models/ objectives/ optimizers/ trackers/ conf/"""


def answer(job: str, words: Sequence[str]) -> str:
    """`bertlab help WORD …`, `bertlab objective=mlm --help`; without words a job's usage. Raises ConfigError
    for a word that is nothing.
    """
    if not words:
        return help_text("train" if job == "help" else job)
    from bertlab.jobs.help import show
    from bertlab.runs.outlines import know_outlines

    know_outlines()
    keys = [
        (
            word
            if job == "help" or word.partition("=")[0].rpartition("init.")[2] in registry.GROUPS
            else word.partition("=")[0]
        )
        for word in words
    ]
    return show(keys, "train" if job == "help" else job)


def help_text(job: str) -> str:
    """Usage, jobs, groups with their options, examples, flags."""
    parts = [registry.job_help(job)]
    if job == "train":
        parts.append(
            "jobs\n" + "\n".join(f"  {name:<10} {registry.job_summary(name)}" for name in registry.jobs())
        )
        groups = (
            f"  {name:<10} {what}: {' '.join(registry.options_of(name)) or '-'}"
            for name, what in registry.GROUPS.items()
        )
        parts.append("groups\n" + "\n".join(groups))
        parts.append(TRAIN_EXAMPLES)
        parts.append(ASK)
    parts.append(FLAGS)
    return "\n\n".join(parts) + "\n"
