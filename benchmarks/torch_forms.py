"""PRDL's descriptors in PyTorch, to measure beside ours: naive, exact, and lean (written by hand)."""

import torch

from jaxface.core import parts

CHUNK = 400_000  # pairs at once in the lean form: the quickest of 1e5 ... 1e7 here


def torch_form(problem, with_masks, *, kind, most_memory):
    """(run, None), as `jax_form` in prdl.py; or (None, estimate) where it takes more than `most_memory()`.

    Args:
        problem: points, masks, descriptors and anchors.
        with_masks: describe the masks in every run, rather than take the descriptors as given.
        kind: "naive", "exact" or "lean".
        most_memory: gives the number of bytes that may be taken.
    """
    # What autograd keeps, and the gradients with respect to the distances of one part.
    estimate = 4 * (problem.pairs + 4 * problem.most_pairs_of_a_part)
    if kind != "lean" and estimate > most_memory():
        return None, estimate
    modes = {"naive": "use_mm_for_euclid_dist_if_necessary", "exact": "donot_use_mm_for_euclid_dist"}
    describe = _lean_descriptor() if kind == "lean" else _naive_descriptor(modes[kind])
    anchors = torch.tensor(problem.anchors)
    points = {part: torch.tensor(array, requires_grad=True) for part, array in problem.points.items()}
    pixels = {part: torch.tensor(parts.mask_points(mask)) for part, mask in problem.masks.items()}
    descriptors = {part: torch.tensor(array) for part, array in problem.descriptors.items()}

    def run():
        loss = torch.zeros(())
        for part, array in points.items():
            array.grad = None
            with torch.no_grad():
                target = describe(anchors, pixels[part]) if with_masks else descriptors[part]
            loss = loss + (describe(anchors, array) - target).square().sum(1).mean()
        loss.backward()
        return loss.item(), {part: array.grad for part, array in points.items()}

    return run, None


def _naive_descriptor(mode):
    def describe(anchors, points):
        distances = torch.cdist(anchors, points, compute_mode=mode)
        return torch.stack([distances.min(1).values, distances.max(1).values, distances.mean(1)], dim=1)

    return describe


def _lean_descriptor():
    def distances_by_chunk(anchors, points):
        """(rows, [rows, N] distances to them) for chunks of anchors, always in the same memory."""
        size = max(1, CHUNK // len(points))
        x, y = points.t().contiguous()
        across, down = torch.empty(2, min(size, len(anchors)), len(points))
        for start in range(0, len(anchors), size):
            rows = slice(start, min(start + size, len(anchors)))
            dx, dy = across[: rows.stop - start], down[: rows.stop - start]
            torch.sub(anchors[rows, :1], x, out=dx)
            torch.sub(anchors[rows, 1:], y, out=dy)
            yield rows, dx.mul_(dx).addcmul_(dy, dy).sqrt_()

    class Descriptor(torch.autograd.Function):
        @staticmethod
        def forward(context, anchors, points):
            descriptor = torch.empty(len(anchors), 3)
            matched = torch.empty(len(anchors), 2, dtype=torch.int64)
            for rows, distances in distances_by_chunk(anchors, points):
                for column, extreme in enumerate((torch.min, torch.max)):
                    descriptor[rows, column], matched[rows, column] = extreme(distances, dim=1)
                descriptor[rows, 2] = distances.mean(1)
            context.save_for_backward(anchors, points, descriptor, matched)
            return descriptor

        @staticmethod
        def backward(context, cotangent):
            anchors, points, descriptor, matched = context.saved_tensors
            # sum over anchors of c (v - a) / d = v sum(c / d) - sum(c a / d): one product of matrices.
            with_one = torch.cat([anchors, torch.ones(len(anchors), 1)], dim=1)
            sums = torch.zeros(len(points), 3)
            for rows, distances in distances_by_chunk(anchors, points):
                slopes = distances.reciprocal_().nan_to_num_(posinf=0.0).mul_(cotangent[rows, 2:] / len(points))
                sums.addmm_(slopes.T, with_one[rows])
            gradient = points * sums[:, 2:] - sums[:, :2]
            for column in (0, 1):
                distance = descriptor[:, column]
                slope = torch.where(distance == 0, 0.0, cotangent[:, column] / distance)
                index = matched[:, column]
                gradient.index_add_(0, index, slope[:, None] * (points[index] - anchors))
            return None, gradient

    return Descriptor.apply
