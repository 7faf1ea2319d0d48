"""`hydra/sweeper=bertlab_zip`: Hydra's basic sweeper, but values of the keys named together in `zipped` go in
pairs, not in products.

`a=1,2 b=3,4 hydra.sweeper.zipped=[[a,b]]` makes two jobs, `a=1 b=3` and `a=2 b=4`. It knows nothing of
bertlab. Hydra runs this file at every start, so nothing heavy is imported here.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035  # Hydra runs this module outside sys.modules

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


@dataclass
class BertlabZipConf:
    """Options of the sweeper."""

    _target_: str = "hydra_plugins.bertlab_zip.sweeper.BertlabZip"
    max_batch_size: Optional[int] = None  # noqa: UP045
    params: Optional[Dict[str, str]] = None  # noqa: UP006, UP045
    zipped: List[List[str]] = field(default_factory=list)  # noqa: UP006  # keys whose values go together


class BertlabZip(BasicSweeper):
    """See the module's docstring."""

    def __init__(self, max_batch_size: Optional[int], params: Any = None, zipped: Any = ()) -> None:  # noqa: UP045
        super().__init__(max_batch_size, params)
        self.zipped = [list(keys) for keys in zipped]

    def split_arguments(  # type: ignore[override]  # a static method there, which cannot know what is zipped
        self,
        overrides: List[Override],  # noqa: UP006
        max_batch_size: Optional[int],  # noqa: UP045
    ) -> List[List[List[str]]]:  # noqa: UP006
        """Batches of jobs: a product over keys, those that go together counting as one, in the order in which
        they were named first.
        """
        values: dict[str, list[str]] = {}
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise HydraException(f"{override.input_line}: values that go together must be listed")
            key = override.get_key_element()
            several = override.is_sweep_override()
            texts = (
                list(override.sweep_string_iterator()) if several else [override.get_value_element_as_str()]
            )
            values[key] = [f"{key}={text}" for text in texts]
        groups: dict[str, list[str]] = {}
        for key in values:
            groups.setdefault(next((str(keys) for keys in self.zipped if key in keys), key), []).append(key)
        for keys in groups.values():
            if len({len(values[key]) for key in keys}) > 1:
                raise HydraException(f"{', '.join(keys)}: values that go together must be as many")
        columns = [list(zip(*(values[key] for key in keys), strict=True)) for keys in groups.values()]
        jobs = [[word for part in job for word in part] for job in itertools.product(*columns)]
        return (
            [jobs] if max_batch_size is None else list(self.split_overrides_to_chunks(jobs, max_batch_size))
        )


ConfigStore.instance().store(
    group="hydra/sweeper", name="bertlab_zip", node=BertlabZipConf, provider="bertlab_zip"
)
