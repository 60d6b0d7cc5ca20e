"""What the head does with a worker's messages: it writes the run folder, and tells the listeners."""

from collections.abc import Sequence

from foldmark.core.files import write_bytes
from foldmark.models.checkpoint import push_checkpoint_bytes
from foldmark.runs.fold_folder import FoldFolder
from foldmark.train.listener import Listener


class Replay:
    """A fold at the head while it trains elsewhere. Its folder is written as training here would write it: a file is there whole
    or not at all, a state before its metrics, the summary last.

    epochs: the most epochs that it has been told of, with a fraction. states: how many came.
    """

    def __init__(self, folder: FoldFolder, listeners: Sequence[Listener]) -> None:
        self.folder, self.listeners = folder, listeners
        self.epochs, self.states = 0.0, 0

    def place(self, where: str) -> None:
        for listener in self.listeners:
            listener.place(where)

    def take(self, message: dict) -> dict | None:
        """Take a message; the fold's figures once it is finished."""
        for name, arguments in message.get("events", ()):
            self._note(name, arguments)
            for listener in self.listeners:
                getattr(listener, name)(*arguments)
        if "state" in message:
            self._write_state(message["state"])
            self.states += 1
        return self._finish(message["result"], message["summary"]) if "result" in message else None

    def _note(self, name: str, arguments: tuple) -> None:
        done = arguments[0]["epoch"] if name == "epoch" else arguments[0]
        self.epochs = max(self.epochs, done)

    def _write_state(self, files: dict[str, bytes]) -> None:
        push_checkpoint_bytes(self.folder, files[self.folder.checkpoint.name])
        write_bytes(self.folder.metrics_file, files[self.folder.metrics_file.name])

    def _finish(self, files: dict[str, bytes], summary: dict) -> dict:
        """Write the files of the finished fold, in the order of `train_fold`."""
        folder = self.folder
        for path in folder.results:
            if path != folder.checkpoint:
                write_bytes(path, files[path.name])
        push_checkpoint_bytes(folder, files[folder.checkpoint.name])
        for listener in self.listeners:
            listener.end(summary)
        write_bytes(folder.summary_file, files[folder.summary_file.name])
        folder.previous_checkpoint.unlink(missing_ok=True)
        return summary
