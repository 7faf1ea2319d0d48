"""Promise 6 by chance instead of by choice: signals at random moments, over every job that writes. The long
form: kills.py.
"""

import pytest
from kills import JOBS, Job, campaign

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("job", JOBS, ids=[job.name for job in JOBS])
def test_random_signals_change_nothing(job: Job) -> None:
    rounds = campaign(seed=7, kills=2, minutes=0.5, told=print, jobs=[job])
    assert [one for one in rounds if one.differs or one.leftovers] == []
