"""Settings that have no effect on some data or beside others: people should know before they wait for a result."""

from __future__ import annotations

from yolov7_jax.config import AugmentConfig, Config

_TILES, _MOST_TILES = 4, 9


def ineffective_settings(config: Config, *, images: int, with_polygons: int) -> list[str]:
    """A sentence for each setting of samples that has no effect, or not the expected one.

    Args:
        config: has the settings.
        images: how many there are to train on.
        with_polygons: how many of their objects have polygons.
    """
    augment = config.augment
    lines = [f"{name}: {_NO_POLYGONS}" for name in _needing_polygons(augment) if not with_polygons]
    mosaic = augment.mosaic > 0 and not config.train.rect
    if config.train.rect and augment.mosaic:
        lines.append("train.rect: mosaic and what goes with it, mixup and copy_paste, have no effect")
    elif not mosaic:
        lines += [
            f"augment.{name}: has no effect, as augment.mosaic is 0"
            for name in ("mosaic9", "mixup", "copy_paste")
            if getattr(augment, name)
        ]
    if mosaic and augment.close_mosaic >= config.train.epochs:
        lines.append(
            f"augment.close_mosaic: as there are {config.train.epochs} epochs, there is no mosaic in any of them"
        )
    tiles = _MOST_TILES if augment.mosaic9 else _TILES
    if mosaic and images < tiles:
        lines.append(f"augment.mosaic: of {tiles} images, but there are {images}: the same ones are in it repeatedly")
    if config.data.class_weights and config.data.sampling != "balanced":
        lines.append(f"data.class_weights: has no effect, as data.sampling is {config.data.sampling}, not balanced")
    return lines


_NO_POLYGONS = "has no effect, as no object of the training images has a polygon"


def _needing_polygons(augment: AugmentConfig) -> list[str]:
    return [f"augment.{name}" for name in ("copy_paste", "paste_in") if getattr(augment, name)]
