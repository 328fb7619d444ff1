"""A run's rounds as a TensorBoard event file."""

from collections.abc import Sequence
from pathlib import Path

from lepton_flwr._files import output_errors
from lepton_flwr.errors import OutputError
from lepton_flwr.runs.history import number
from lepton_flwr.runs.observer import RoundRecord

_TAGS = {
    "accuracy": "evaluation/accuracy",
    "auc": "evaluation/auc",
    "loss": "evaluation/loss",
    "epsilon_record": "epsilon/record",
    "epsilon_client": "epsilon/client",
    "bytes_up": "bytes_per_client/up",
    "bytes_down": "bytes_per_client/down",
    "participants": "clients/participants",
    "survivors": "clients/survivors",
    "saturated": "clients/saturated_coordinates",
}


def write(folder: Path, records: Sequence[RoundRecord]) -> None:
    """Write one event per round, at the time when it finished.

    The records of `tf.summary` are built directly: its `scalar` needs the TensorBoard package,
    which TensorFlow no longer brings.

    Args:
        folder: made if it is not there.
        records: the rounds.

    Raises:
        OutputError: it cannot be written.
    """
    if not records:
        return
    import tensorflow as tf

    with output_errors(folder):
        folder.mkdir(exist_ok=True)
    path = folder / f"events.out.tfevents.{int(records[0].finished)}.lepton"
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            began = records[0].finished
            header = tf.compat.v1.Event(wall_time=began, file_version="brain.Event:2")
            writer.write(header.SerializeToString())
            for record in records:
                summary = tf.compat.v1.Summary()
                for tag, value in _values(record).items():
                    summary.value.add(tag=tag, simple_value=value)
                when = record.finished
                event = tf.compat.v1.Event(wall_time=when, step=record.round, summary=summary)
                writer.write(event.SerializeToString())
    except tf.errors.OpError as error:
        path.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot write: {type(error).__name__}") from error


def _values(record: RoundRecord) -> dict[str, float]:
    known = {tag: number(getattr(record, name)) for name, tag in _TAGS.items()}
    known |= {f"seconds/{phase}": number(s) for phase, s in record.seconds.items()}
    return {tag: value for tag, value in known.items() if value is not None}
