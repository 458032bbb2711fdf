"""The device that a run asks for."""

import torch


def check_device(name: str) -> None:
    """Whether this machine has it.

    Raises:
        ValueError: neither cpu nor cuda, or a GPU that is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    # torch takes cpu:1 too, and means the same processor
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise ValueError(f"device={name}: cpu, cuda or cuda:NUMBER is needed")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        has = "no GPU" if not count else f"{count} GPU{'s' * (count > 1)}, counted from cuda:0"
        raise ValueError(f"device={name}: this machine has {has}: use device=cpu{' or another one' if count else ''}")
