"""One run's configuration from everything that can set it, in a fixed order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lepton_flwr.config import RunConfig
from lepton_flwr.config_tables import nest, parse_assignments, read_toml
from lepton_flwr.errors import ConfigError
from lepton_flwr.runs.artifacts import recipients_of

DEFAULT_SCENARIO = "transport"


def resolve(
    scenario: str | None = None,
    *,
    config: Path | None = None,
    clients: int | None = None,
    rounds: int | None = None,
    epsilon: float | None = None,
    client_epsilon: float | None = None,
    no_dp: bool = False,
    seed: int | None = None,
    csv: Path | None = None,
    label: str | None = None,
    by: str | None = None,
    model_to: Sequence[Path] = (),
    assignments: Sequence[str] = (),
) -> RunConfig:
    """Layer the settings; later ones win: scenario, file, options, assignments.

    An epsilon given as an option turns its level of privacy on and has the noise calibrated to
    it, whatever the file says: asking for privacy never yields a run without it.

    Args:
        scenario: name of the scenario; None takes it from the file, or else "transport".
        config: TOML file, for example the `config.toml` of an earlier run.
        clients: number of clients.
        rounds: rounds of training.
        epsilon: most that the run may spend per record.
        client_epsilon: most that the run may spend per client.
        no_dp: train without differential privacy at either level.
        seed: of partition, initial weights and data order; never of noise.
        csv: file of the scenario "csv", which it chooses.
        label: its label column.
        by: its column whose values are the clients.
        model_to: files of the recipients for whom the model is encrypted.
        assignments: texts such as `train.local_steps=20`.

    Raises:
        ConfigError: a setting is unknown, out of range, or contradicts another; a file is no
            recipient's.
    """
    if no_dp and (epsilon is not None or client_epsilon is not None):
        given = "--epsilon" if epsilon is not None else "--client-epsilon"
        raise ConfigError(f"--no-dp and {given} contradict each other: give one of them")
    if csv is not None and scenario not in (None, "csv"):
        raise ConfigError(f"--csv with scenario {scenario}: expected one of them")
    file = read_toml(config) if config is not None else {}
    options: dict[str, Any] = {
        "scenario": "csv" if csv is not None else scenario,
        "data.path": str(csv.resolve()) if csv is not None else None,
        "data.label": label,
        "data.by": by,
        "output.model_to": _recipients(model_to),
        "clients": clients,
        "rounds": rounds,
        "seed": seed,
        **_privacy("dp.record", epsilon),
        **_privacy("dp.client", client_epsilon),
        **({"dp.record.enabled": False, "dp.client.enabled": False} if no_dp else {}),
    }
    chosen = nest({key: value for key, value in options.items() if value is not None})
    assigned = parse_assignments(assignments)
    name = {"scenario": DEFAULT_SCENARIO, **file, **chosen, **assigned}["scenario"]
    made = RunConfig.build(scenario_defaults(name), file, chosen, assigned, {"scenario": name})
    recipients_of(made)  # refused here, not once data was read
    return made


def _recipients(files: Sequence[Path]) -> list[str] | None:
    from lepton_flwr.crypto.recipients import Recipient

    return [Recipient.load(file).to_text().strip() for file in files] or None


def scenario_defaults(name: Any) -> Mapping[str, Any]:
    """Return the settings that a scenario brings.

    Raises:
        ConfigError: there is no such scenario.
    """
    from lepton_flwr.data.scenarios import get

    if not isinstance(name, str):
        raise ConfigError(f"scenario={name!r}: expected a name, see `lepton scenarios`")
    defaults: Mapping[str, Any] = get(name).defaults
    return defaults


def _privacy(level: str, epsilon: float | None) -> dict[str, Any]:
    if epsilon is None:
        return {}
    return {
        f"{level}.enabled": True,
        f"{level}.epsilon": epsilon,
        f"{level}.noise_multiplier": 0.0,
    }
