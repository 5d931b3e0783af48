"""events.bin: three records as TensorBoard's own writer makes them. Needs tensorboard (any 2.x)."""

import io
import pathlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Kept(io.BytesIO):
    """A file whose bytes are still there after it is closed."""

    def close(self):
        self.kept = self.getvalue()
        super().close()


out = Kept()
writer = RecordWriter(out)
for event in [
    Event(wall_time=1.5, step=0, file_version="brain.Event:2"),
    Event(wall_time=2.25, step=300, summary=Summary(value=[Summary.Value(tag="val/psnr", simple_value=27.25)])),
    Event(wall_time=3.5, step=70_000, session_log=SessionLog(status=SessionLog.START)),
]:
    writer.write(event.SerializeToString())
writer.close()
pathlib.Path(__file__).with_name("events.bin").write_bytes(out.kept)
