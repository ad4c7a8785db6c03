"""Several batches to one update: which belong together, and how many updates that makes."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Groups:
    """Batches whose gradients make one update. The last group of an epoch may be smaller; none spans two epochs."""

    batches_per_epoch: int
    accumulate: int  # batches of a full group

    @property
    def updates_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulate)

    def size(self, batch: int) -> int:
        """Batches in the group of batch number `batch`, counted from 0 over all epochs."""
        position = batch % self.batches_per_epoch
        first = position - position % self.accumulate
        return min(self.accumulate, self.batches_per_epoch - first)

    def complete(self, batches: int) -> bool:
        """Whether the first `batches` of a training end with a whole group."""
        position = batches % self.batches_per_epoch
        return position % self.accumulate == 0

    def updates(self, batches: int) -> int:
        """Updates that the first `batches` of a training make."""
        epochs, position = divmod(batches, self.batches_per_epoch)
        return epochs * self.updates_per_epoch + math.ceil(position / self.accumulate)
