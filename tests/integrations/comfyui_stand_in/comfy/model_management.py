"""The part of ComfyUI's memory management that nodes use; `calls` remembers what was asked."""

from typing import Any

import torch

device = torch.device("cpu")
calls: list[tuple[str, Any]] = []
_interrupted = False


class InterruptProcessingException(Exception):
    pass


def interrupt_current_processing(value: bool = True) -> None:
    global _interrupted
    _interrupted = value


def throw_exception_if_processing_interrupted() -> None:
    global _interrupted
    if _interrupted:
        _interrupted = False
        raise InterruptProcessingException()


def get_torch_device() -> torch.device:
    return device


def text_encoder_offload_device() -> torch.device:
    return torch.device("cpu")


def module_size(module: torch.nn.Module) -> int:
    return sum(tensor.nelement() * tensor.element_size() for tensor in module.state_dict().values())


def minimum_inference_memory() -> float:
    return 1e9


def free_memory(memory_required: float, device: torch.device, keep_loaded: Any = ()) -> list[Any]:
    calls.append(("free_memory", memory_required))
    return []


def soft_empty_cache(force: bool = False) -> None:
    calls.append(("soft_empty_cache", None))
