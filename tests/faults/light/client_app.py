"""The product's ClientApp with another task, which a test can stop in any exchange."""

import os
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp
from light import task

import clients
from clients.client_app import app as product
from clients.spending import LEDGER
from lepton_flwr.crypto.identity import Roster
from lepton_flwr.secagg import version
from lepton_flwr.secagg.wire import EXCHANGE, RECORD

sys.modules["clients.keras_task"] = clients.keras_task = task
if older := os.environ.get("LEPTON_TEST_VERSION"):  # what a device of an older release would say
    version.__version__ = older
if os.environ.get("LEPTON_TEST_BLIND"):  # a device that does not ask whether it may take part
    Roster.check = lambda *_: None


class LightApp(ClientApp):
    """Asks the file that `LEPTON_TEST_HOLD` names where to stop, before and after each message."""

    def __call__(self, message: Message, context: Context) -> Message:
        exchange = message.content.config_records.get(RECORD, {}).get(EXCHANGE)
        _hold(f"{exchange}")
        _corrupt(f"{exchange}", context)
        reply = product(message, context)
        _hold(f"{exchange}:after")
        return reply


def _corrupt(exchange: str, context: Context) -> None:
    """What a fault of the device's memory or disk would do to what it keeps between messages."""
    path = Path(os.environ.get("LEPTON_TEST_HOLD", os.devnull)).with_name("corrupt")
    wanted = path.read_text() if path.is_file() else ""
    if wanted == exchange:
        name = f"{RECORD}.{context.run_id}"
    elif (wanted, exchange) == ("ledger", "train"):
        name = LEDGER
    else:
        return
    path.unlink()
    record = dict(context.state.config_records[name])
    for key, value in record.items():
        if isinstance(value, bytes):
            record[key] = bytes([value[0] ^ 1]) + value[1:] if value else value
    context.state[name] = ConfigRecord(record)


def _hold(place: str) -> None:
    path = Path(os.environ.get("LEPTON_TEST_HOLD", os.devnull))
    while path.is_file() and path.read_text() == place:
        path.with_name("held").touch()
        time.sleep(0.05)


app = LightApp()
