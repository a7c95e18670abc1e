"""PRDL on vertices as anyone writes it in PyTorch, to measure beside ours on the same accelerator."""

import time

import torch
from accelerator_report import LeftOut
from measuring import most_memory, seconds_of


def all_pairs(problem, *, compiled, budget):
    """Figures of loss and gradient against the descriptors: a part's pairs in one array, made by broadcasting.

    Args:
        problem: points, descriptors and anchors, as prdl.py's `face_problem` gives them.
        compiled: by torch.compile; compiling counts as the first call less a later one.
        budget: seconds that it may be repeated for.

    Raises:
        LeftOut: where what autograd keeps does not fit in memory.
    """
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    # Kept for the gradient: two offsets, the square and the root of every pair; and a part's gradients on the way back.
    needed = 4 * (4 * problem.pairs + 4 * problem.most_pairs_of_a_part)
    if not compiled and needed > (torch.cuda.mem_get_info()[0] if on_gpu else most_memory()):
        raise LeftOut(f"would need {needed / 1e9:.1f} GB")
    torch._dynamo.config.recompile_limit = 2 * len(problem.points)  # each part has its shape; 8 is all it allows
    describe = torch.compile(_descriptor, dynamic=False) if compiled else _descriptor
    anchors = torch.tensor(problem.anchors, device=device)
    points = {part: torch.tensor(array, device=device, requires_grad=True) for part, array in problem.points.items()}
    descriptors = {part: torch.tensor(array, device=device) for part, array in problem.descriptors.items()}

    def run():
        loss = torch.zeros((), device=device)
        for part, array in points.items():
            array.grad = None
            loss = loss + (describe(array, anchors) - descriptors[part]).square().sum(1).mean()
        loss.backward()
        if on_gpu:
            torch.cuda.synchronize()
        return loss.item()

    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(run, budget)
    found = {"ms": 1e3 * seconds, "ms_a_face": 1e3 * seconds}
    if compiled:
        found["compile_seconds"] = first - seconds
    if on_gpu:
        found["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found


def _descriptor(points, anchors):
    across = anchors[:, None, 0] - points[None, :, 0]
    down = anchors[:, None, 1] - points[None, :, 1]
    # The root has no gradient at zero, and a small number under it keeps that from spreading.
    distances = torch.sqrt(across * across + down * down + 1e-12)
    return torch.stack([distances.amin(1), distances.amax(1), distances.mean(1)], dim=1)
