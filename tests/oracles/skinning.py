"""Linear blend skinning of one face in plain NumPy."""

import numpy as np
from scipy.spatial.transform import Rotation


def slow_skinning(vertices, joints, angles, skinning):
    """FLAME's eq. 2 and 3 for one face, from the definition: chains of 4 x 4 matrices in float64."""
    turns = [np.eye(3)] * len(skinning.parents)
    for joint, angle in zip(skinning.posed, np.reshape(angles, (-1, 3)), strict=True):
        turns[joint] = Rotation.from_rotvec(angle).as_matrix()
    features = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    corrected = vertices + np.einsum("vcp,p->vc", np.asarray(skinning.pose_basis, np.float64), features)
    world = []
    for joint, parent in enumerate(skinning.parents):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ local if parent >= 0 else local)
    result = np.zeros_like(corrected)
    for joint, matrix in enumerate(world):
        from_rest = np.eye(4)
        from_rest[:3, 3] = -joints[joint]
        moved = (matrix @ from_rest) @ np.concatenate([corrected, np.ones((len(corrected), 1))], 1).T
        result += np.asarray(skinning.weights, np.float64)[:, joint, None] * moved[:3].T
    return result
