"""Which views are held out: the data's own split, else every n-th by name."""

from collections.abc import Sequence

from splatir.data.capture import CapturedImage, NamedSplit


def split_images(
    images: Sequence[CapturedImage], own: NamedSplit | None, test_every: int
) -> tuple[list[CapturedImage], list[CapturedImage], tuple[str, ...]]:
    """Divide images into training and test ones, both sorted by name.

    Args:
        images: At least one.
        own: The data's own split, or None. Images in neither of its lists are left out.
        test_every: Without an own split the images 0, n, 2n, ... by sorted name are held out;
            0 for none. At least two images stay for training.

    Returns:
        Training images, test images and warnings.

    Raises:
        ValueError: Fewer than two training images.
    """
    ordered = sorted(images, key=lambda image: image.name)
    if len(ordered) == 1:
        raise ValueError(
            f"there is one image only ({ordered[0].name}); geometry needs at least two, "
            "and good results some twenty or more."
        )
    warnings: list[str] = []
    if own is not None:
        test = [image for image in ordered if image.name in own.test]
        rest = [image for image in ordered if image.name not in own.test]
        train = [image for image in rest if own.train is None or image.name in own.train]
        unlisted = len(rest) - len(train)
        if unlisted:
            warnings.append(f"{unlisted} images are in no list of {own.source} and are left out.")
        if own.test and not test:
            warnings.append(f"none of the test images that {own.source} lists was found.")
    elif test_every == 0:
        train, test = ordered, []
    else:
        test = ordered[::test_every]
        train = [image for i, image in enumerate(ordered) if i % test_every]
        if len(train) < 2:
            train, test = ordered, []
            warnings.append(f"{len(ordered)} images are too few to hold some out: no test views.")
    if len(train) < 2:
        raise ValueError(
            f"only {len(train)} of {len(ordered)} images are left for training; at least two are "
            "needed." + (f" Check {own.source}." if own else "")
        )
    return train, test, tuple(warnings)
