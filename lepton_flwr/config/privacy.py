"""Both levels of differential privacy.

These settings have types of their own: tuning speed cannot change a guarantee.
"""

from dataclasses import dataclass, field

from lepton_flwr import _validate as check

ENGINES = ("bookkeeping", "vectorized", "tensorflow-privacy")


@dataclass(frozen=True)
class RecordDPConfig:
    """Record-level privacy: DP-SGD on the client.

    Attributes:
        enabled: whether clients train with it.
        epsilon: most that the whole run may spend.
        noise_multiplier: noise standard deviation over the clip norm; 0 calibrates it to
            `epsilon`. A run whose noise is too small for its epsilon does not start.
        l2_norm_clip: bound of one example's gradient.
        engine: how per-example gradients are computed.
        statistics_share: of `epsilon`, what the statistics of preprocessing may spend by
            themselves, where they are needed. Together with training they spend `epsilon`.
        statistics_noise_multiplier: of each of their releases; 0 calibrates it to the share.
        statistics_releases: how many there were in this run; filled in when data is prepared.
    """

    enabled: bool = True
    epsilon: float = 3.0
    noise_multiplier: float = 0.0
    l2_norm_clip: float = 1.0
    engine: str = "bookkeeping"
    statistics_share: float = 0.3
    statistics_noise_multiplier: float = 0.0
    statistics_releases: int = 0

    def __post_init__(self) -> None:
        check.finite("dp.record.statistics_share", self.statistics_share, above=0, below=1)
        check.finite(
            "dp.record.statistics_noise_multiplier", self.statistics_noise_multiplier, at_least=0
        )
        check.integer("dp.record.statistics_releases", self.statistics_releases, at_least=0)
        check.finite("dp.record.epsilon", self.epsilon, above=0)
        check.finite("dp.record.noise_multiplier", self.noise_multiplier, at_least=0)
        check.finite("dp.record.l2_norm_clip", self.l2_norm_clip, above=0)
        check.choice("dp.record.engine", self.engine, ENGINES)


@dataclass(frozen=True)
class ClientDPConfig:
    """Client-level privacy: clipped updates, noise on the decrypted sum.

    Attributes:
        enabled: whether it is on; weights are then uniform.
        epsilon: most that the whole run may spend.
        noise_multiplier: noise standard deviation over the clip norm; 0 calibrates it.
        l2_norm_clip: bound of one client's whole update.
        sampling_probability: chance of each client to be in a round's cohort, drawn by the
            server (Poisson sampling); 1 takes every client.
        noise: who adds the noise.
        adaptive_clip: whether `l2_norm_clip`, then that of the first round, follows the quantile.
        clip_quantile: share of clients whose updates adaptive clipping leaves as they are.
        clip_learning_rate: of the logarithm of the bound, per round.
        clip_by_layer: whether each of k layers is clipped to l2_norm_clip / sqrt(k).
    """

    enabled: bool = False
    epsilon: float = 8.0
    noise_multiplier: float = 0.0
    l2_norm_clip: float = 0.5
    sampling_probability: float = 1.0
    noise: str = "central"
    adaptive_clip: bool = False
    clip_quantile: float = 0.5
    clip_learning_rate: float = 0.2
    clip_by_layer: bool = False

    def __post_init__(self) -> None:
        check.finite("dp.client.epsilon", self.epsilon, above=0)
        check.finite("dp.client.noise_multiplier", self.noise_multiplier, at_least=0)
        check.finite("dp.client.l2_norm_clip", self.l2_norm_clip, above=0)
        check.finite(
            "dp.client.sampling_probability", self.sampling_probability, above=0, at_most=1
        )
        check.finite("dp.client.clip_quantile", self.clip_quantile, above=0, below=1)
        check.finite("dp.client.clip_learning_rate", self.clip_learning_rate, above=0, at_most=10)
        check.choice("dp.client.noise", self.noise, ("central",))


@dataclass(frozen=True)
class DPConfig:
    """Both levels of differential privacy and the delta they share."""

    delta: float = 1e-5
    record: RecordDPConfig = field(default_factory=RecordDPConfig)
    client: ClientDPConfig = field(default_factory=ClientDPConfig)

    def __post_init__(self) -> None:
        check.finite("dp.delta", self.delta, at_least=1e-11, below=1)
