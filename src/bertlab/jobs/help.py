"""`bertlab help`: what a group, an option, a key or a job is: type, default, limits, explanation, from the schema itself

usage: bertlab help [WORD ...]

  bertlab help objective              what the group is, its options, the keys that all of them have
  bertlab help objective=mlm          one option: what it reads and scores by, its keys       (also: bertlab objective=mlm --help)
  bertlab help optimizer.lr           one key, and its default in each option that has it
  bertlab help dropout                every key that speaks of it
  bertlab help report                 a job's usage and keys
"""

from collections.abc import Sequence

from bertlab.config.describe import explain_word, keys_of_job, listed
from bertlab.config.registry import Job, job_help, job_summary, jobs
from bertlab.config.schema import Node


def show(words: Sequence[str], job: str = "train") -> str:
    """The answers to all words. Raises ConfigError for one that is nothing."""
    return "\n\n".join(_of_job(word) if word in jobs() else explain_word(word, job) for word in words) + "\n"


def _of_job(job: str) -> str:
    keys = [] if job in ("train", "plan", "help") else list(listed(keys_of_job(job)))
    return "\n".join(
        [f"bertlab {job}: {job_summary(job)}", "", job_help(job), *(["", "keys", *keys] if keys else [])]
    )


JOB = Job(Node, show)  # which the command line hands its words
