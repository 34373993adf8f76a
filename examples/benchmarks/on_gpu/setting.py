"""What every part is given. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """Where a part measures. device: `cpu` or a CUDA device. is_dry: whether shapes are tiny, to
    see that every part works. folder: for files, the same for all parts; removed in the end."""

    device: str
    is_dry: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def run(self) -> Path:
        """Where the run of the demo on the device is."""
        return self.folder / "run-device"
