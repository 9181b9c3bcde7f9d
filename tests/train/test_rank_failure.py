"""A rank that has finished ends well, also where the store that the ranks share ends with the first of them."""

from __future__ import annotations

from patience import HANG

from mgpo_train.distributed.rank_failure import RankMonitor


class StoreOfRankZero:
    """A store whose host leaves as soon as all ranks have finished."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def set(self, name: str, value: str) -> None:
        self.values[name] = value

    def check(self, names: list[str]) -> bool:
        if any("done" in name for name in self.values):
            raise ConnectionResetError("connection reset by peer")
        return False


def test_a_finished_rank_does_not_fail_when_the_store_is_gone() -> None:
    store = StoreOfRankZero()
    monitor = RankMonitor(rank=1, world=2, store=store)
    monitor.start()
    monitor.finish()
    assert any("done" in name for name in store.values)
    monitor._thread.join(HANG)
    assert not monitor._thread.is_alive()
