"""The texts that make a folder ready to run: policy, systemd unit, environment, start script."""

from lepton_flwr.privacy.policy import PrivacyPolicy

UNIT_FILE = "lepton.service"
ENVIRONMENT_FILE = "environment"
START_FILE = "start.sh"
PROGRAM = "/opt/lepton/bin/lepton"
STATE = "/var/lib/lepton"

_POLICY = """\
# What a server may ask of this device. It never comes from the server: the device's owner decides.
# docs/privacy-budget.md and docs/secure-aggregation.md describe every key.

min_survivors = {min_survivors}  # fewest devices whose updates are summed with this one's
# min_record_noise_multiplier = 0.8  # refuse to train with less noise
# apps = []  # digests of the code that may run, from `lepton app digest`; empty allows any

{privacy}
[revocation]
required = true  # no list of revoked devices, no work
allow_expired = false  # nor with a list after the day when a newer one was due
"""

_UNIT = """\
# Copy the folder to {state}/{name} (owner lepton, mode 0700), this file to
# /etc/systemd/system/lepton-{name}.service; then systemctl enable --now lepton-{name}
[Unit]
Description=lepton-flwr: {role} {name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User=lepton
Group=lepton
WorkingDirectory={state}/{name}
EnvironmentFile={state}/{name}/{environment}
ExecStart={program} {role} run {state}/{name}
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=30
Restart=on-failure
RestartSec=30
# Ended by SIGTERM, as it should be.
SuccessExitStatus=143
UMask=0077
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
# All that it may write to. What else its settings name (of a server --out, --ledger and a file of
# [observe] prometheus; of a device ledger and ledger_head) is another ReadWritePaths= line.
ReadWritePaths={state}/{name}

[Install]
WantedBy=multi-user.target
"""

_ENVIRONMENT = """\
# NAME=value lines for systemd's EnvironmentFile, start.sh and docker --env-file.
FLWR_TELEMETRY_ENABLED=0
FLWR_DISABLE_UPDATE_CHECK=1
TF_CPP_MIN_LOG_LEVEL=2
"""

_DEVICE_ENVIRONMENT = """\
# Cores that training may use; all if not set.
# OMP_NUM_THREADS=2
# Where `lepton keys protect` has put identity.pem behind a passphrase:
# LEPTON_PASSPHRASE=
"""

_START = """\
#!/bin/sh
# Runs this {role} until Ctrl-C, as lepton.service does under systemd.
set -eu
cd "$(dirname "$0")"
set -a
. ./{environment}
set +a
exec "${{LEPTON:-lepton}}" {role} run "$PWD"
"""


def policy(min_survivors: int, spending: PrivacyPolicy) -> str:
    """The policy of a new device, TOML."""
    return _POLICY.format(min_survivors=min_survivors, privacy=spending.to_toml())


def unit(role: str, name: str) -> str:
    """The systemd unit of a `device` or `server`."""
    return _UNIT.format(
        role=role, name=name, environment=ENVIRONMENT_FILE, program=PROGRAM, state=STATE
    )


def environment(role: str) -> str:
    """The environment file of a `device` or `server`."""
    return _ENVIRONMENT + (_DEVICE_ENVIRONMENT if role == "device" else "")


def start_script(role: str) -> str:
    """The start script of a `device` or `server`."""
    return _START.format(role=role, environment=ENVIRONMENT_FILE)
