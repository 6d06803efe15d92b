"""Random polygons, and whether points lie in them by another method than the package's: the sum of angles."""

import numpy as np


def random_polygon(rng, center, radius, *, corners, wild=False):
    """A concave star around a center, or, if wild, corners anywhere, so that edges may cross; [corners, 2]."""
    if wild:
        return center + rng.uniform(-radius, radius, (corners, 2))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(0, 0.9, corners)) / corners
    reach = radius * rng.uniform(0.25, 1, corners)
    return center + np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)


def lies_in(points, polygons):
    """Whether points [..., 2] lie in any of the polygons: those around which a polygon turns an odd number of times."""
    inside = np.zeros(points.shape[:-1], bool)
    for polygon in polygons:
        turns = np.zeros(points.shape[:-1])
        for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            a, b = start - points, end - points
            turns += np.arctan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(axis=-1))
        inside |= np.round(turns / (2 * np.pi)).astype(int) % 2 == 1
    return inside
