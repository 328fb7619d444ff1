"""A strategy wrapper that gives any linear Flower strategy secure aggregation."""

from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from strategies.secure_grid import SecureGrid

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class SecureAggregation(Strategy):
    """Runs another strategy on a `SecureGrid`: FedAvg, FedAvgM, FedAdam, FedYogi, FedProx, ...

    The inner strategy must be linear: it may use the mean of the clients' models and metrics, and
    nothing that tells clients apart (medians, Krum, per-client logs).

    Args:
        inner: the strategy.
        secure: from Flower's grid to the secure one.
        evaluate_every: rounds between evaluations on the clients; the last is always evaluated.
        rounds_done: rounds that a server before this one has ended: the first is one more.
    """

    def __init__(
        self,
        inner: Strategy,
        secure: Callable[[Grid], SecureGrid],
        *,
        evaluate_every: int = 1,
        rounds_done: int = 0,
    ) -> None:
        self.inner = inner
        self._secure = secure
        self._evaluate_every = evaluate_every
        self._rounds_done = rounds_done
        self._num_rounds = 0

    def start(  # noqa: PLR0917 - Flower's signature
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """As Flower's `Strategy.start`, on the secure grid; `num_rounds` counts all rounds.

        `evaluate_fn` is called with 0 before the first round, then with each round's number.
        """
        self._num_rounds = num_rounds
        result = super().start(
            self._secure(grid),
            initial_arrays,
            num_rounds - self._rounds_done,
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn
            and (lambda number, arrays: evaluate_fn(number and self._number(number), arrays)),
        )
        for history in (
            result.train_metrics_clientapp,
            result.evaluate_metrics_clientapp,
            result.evaluate_metrics_serverapp,
        ):
            numbered = {number and self._number(number): m for number, m in history.items()}
            history.clear()
            history.update(numbered)
        return result

    def _number(self, number: int) -> int:
        """Flower counts this server's rounds, the run counts all."""
        return number + self._rounds_done

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the inner strategy."""
        return self.inner.configure_train(self._number(server_round), arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As the inner strategy, on the one reply that holds the mean."""
        return self.inner.aggregate_train(self._number(server_round), replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As the inner strategy, in the rounds that are evaluated."""
        number = self._number(server_round)
        if number % self._evaluate_every and number != self._num_rounds:
            return []
        return self.inner.configure_evaluate(number, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """As the inner strategy, on the one reply that holds the sums."""
        return self.inner.aggregate_evaluate(self._number(server_round), replies)

    def summary(self) -> None:
        """As the inner strategy."""
        self.inner.summary()
