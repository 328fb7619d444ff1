"""What a device lets a server ask: its `policy.toml`."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lepton_flwr import _validate as check
from lepton_flwr.crypto.revocation_rules import RevocationRules
from lepton_flwr.errors import ConfigError, PolicyError
from lepton_flwr.privacy.policy import PrivacyPolicy
from lepton_flwr.secagg.floors import ClientFloors

POLICY_FILE = "policy.toml"
ACTIONS = ("train", "evaluate", "query.statistics")
# Beyond those, what a policy may allow by name.
OTHER_ACTIONS = ("evaluate.vote",)


@dataclass(frozen=True)
class Policy:
    """What a device lets a server ask.

    Attributes:
        min_survivors: fewest clients that the device's update may be summed with, itself
            included.
        min_record_noise_multiplier: smallest noise multiplier of record-level privacy that it
            trains with; 0 allows training without.
        actions: what it may be asked; each a type of Flower messages.
        secure_aggregation: true, for this app answers in no other way.
        apps: hexadecimal digests of the code that may run (`lepton app digest`); empty allows any.
        app_signers: hexadecimal Ed25519 keys whose signature, in `app.sig`, allows code as well.
        privacy: what its data may be spent on; see `PrivacyPolicy`.
        secagg: what it asks of a secure sum beside the survivors; see `ClientFloors`.
        revocation: when it goes on without a recent revocation list; see `RevocationRules`.
    """

    min_survivors: int
    min_record_noise_multiplier: float = 0.0
    actions: Sequence[str] = ACTIONS
    secure_aggregation: bool = True
    apps: Sequence[str] = ()
    app_signers: Sequence[str] = ()
    privacy: Mapping[str, Any] = field(default_factory=dict)
    secagg: Mapping[str, Any] = field(default_factory=dict)
    revocation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check.integer("min_survivors", self.min_survivors, at_least=2)
        check.finite("min_record_noise_multiplier", self.min_record_noise_multiplier, at_least=0)
        known = (*ACTIONS, *OTHER_ACTIONS)
        if not isinstance(self.actions, Sequence) or not set(self.actions) <= set(known):
            raise ConfigError(f"actions={self.actions!r}: expected a list out of {list(known)}")
        object.__setattr__(self, "actions", tuple(self.actions))  # equal, however it was written
        if self.secure_aggregation is not True:
            raise ConfigError(
                f"secure_aggregation={self.secure_aggregation!r}: expected true, for this app "
                "answers in no other way"
            )
        for name in ("apps", "app_signers"):
            for value in _texts(name, getattr(self, name)):
                if not re.fullmatch("[0-9a-f]{64}", value):
                    raise ConfigError(f"{name}: {value!r}: expected 64 hexadecimal digits")
        _ = (
            self.spending,
            self.floors,
            self.revocation_rules,
        )  # refused here, not in the middle of a run

    @property
    def spending(self) -> PrivacyPolicy:
        """What its data may be spent on."""
        return PrivacyPolicy.from_table(self.privacy)

    @property
    def floors(self) -> ClientFloors:
        """What it asks of a secure sum."""
        return ClientFloors.from_table(self.secagg, self.min_survivors)

    @property
    def revocation_rules(self) -> RevocationRules:
        """When it goes on without a recent revocation list."""
        return RevocationRules.from_table(self.revocation)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a policy from TOML.

        Raises:
            PolicyError: the file cannot be read, is not TOML, lacks `min_survivors`, has an
                unknown key, or a value is out of its range.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(**table)
        except OSError as error:
            raise PolicyError(f"{path.name}: {error.strerror}: a device needs a policy") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path.name}: not TOML: {error}") from None
        except ConfigError as error:
            raise PolicyError(f"{path.name}: {error}") from None
        except TypeError:
            raise PolicyError(
                f"{path.name}: keys {', '.join(sorted(table)) or '(none)'}: expected "
                f"min_survivors and, if wanted, {', '.join(list(cls.__dataclass_fields__)[1:])}"
            ) from None


def _texts(name: str, values: object) -> Sequence[str]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{name}={values!r}: expected a list of texts")
    return values
