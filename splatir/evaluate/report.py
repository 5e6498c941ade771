"""One picture that shows how good a result is: photo, render and buffers side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from splatir.codecs.atomic import atomic_file
from splatir.evaluate.held_out import RenderedView, ShadedView
from splatir.evaluate.metrics import ImageScores
from splatir.evaluate.pictures import (
    albedo_picture,
    depth_picture,
    depth_range,
    error_picture,
    light_picture,
    normal_picture,
    srgb_picture,
    value_picture,
)
from splatir.scene.lights import EnvironmentLight

_MARGIN = 8
_TEXT_SIZE = 14
_LINE = 20
_INK = (32, 32, 32)
_PAPER = (255, 255, 255)


@dataclass(frozen=True)
class SheetCell:
    """One picture of a contact sheet.

    Attributes:
        picture: 8-bit sRGB.
        caption: What it shows, a few words.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    caption: str


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet, usually one view.

    Attributes:
        title: Name and scores.
        cells: Pictures from left to right.
    """

    title: str
    cells: tuple[SheetCell, ...]


def contact_sheet(rows: Sequence[SheetRow], title: str = "", cell_width: int = 240) -> Image.Image:
    """Lay labelled pictures out in rows on white.

    Args:
        rows: At least one, each with at least one cell; lengths may differ.
        title: First line of the sheet; empty for none.
        cell_width: Width of every picture on the sheet, pixels; heights keep the proportions.

    Raises:
        ValueError: There is nothing to show.
    """
    if not rows or any(not row.cells for row in rows):
        raise ValueError("a contact sheet needs rows with at least one picture each.")
    font = ImageFont.load_default(size=_TEXT_SIZE)
    num_columns = max(len(row.cells) for row in rows)
    width = num_columns * (cell_width + _MARGIN) + _MARGIN
    pictures = [[_scaled(cell.picture, cell_width) for cell in row.cells] for row in rows]
    heights = [max(picture.height for picture in row) for row in pictures]
    top = _MARGIN + (_LINE + _MARGIN if title else 0)
    height = top + sum(2 * _LINE + row_height + 2 * _MARGIN for row_height in heights)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN), _fitted(title, width - 2 * _MARGIN, font), _INK, font)
    for row, row_pictures, row_height in zip(rows, pictures, heights, strict=True):
        draw.text((_MARGIN, top), _fitted(row.title, width - 2 * _MARGIN, font), _INK, font)
        for column, (cell, picture) in enumerate(zip(row.cells, row_pictures, strict=True)):
            left = _MARGIN + column * (cell_width + _MARGIN)
            draw.text((left, top + _LINE), _fitted(cell.caption, cell_width, font), _INK, font)
            sheet.paste(picture, (left, top + 2 * _LINE))
        top += 2 * _LINE + row_height + 2 * _MARGIN
    return sheet


def save_png(path: Path, image: Image.Image) -> None:
    """Write a picture as PNG, all or nothing.

    Raises:
        OSError: The file cannot be written; the previous one is unchanged.
    """
    with atomic_file(path) as stream:
        image.save(stream, format="PNG", optimize=True)


def score_text(scores: ImageScores) -> str:
    """Scores as a short line, with the protocol's names."""
    parts = [f"psnr_full {scores.psnr_full:.2f} dB"]
    if scores.psnr_fg is not None:
        parts.append(f"psnr_fg {scores.psnr_fg:.2f} dB")
    return "   ".join([*parts, f"ssim {scores.ssim:.4f}"])


def radiance_row(view: RenderedView) -> SheetRow:
    """Photo, render, error, and the buffers that were composited, with the view's scores."""
    cells = [
        SheetCell(srgb_picture(view.photo_srgb), "photo"),
        SheetCell(srgb_picture(view.image_srgb), "render"),
        SheetCell(error_picture(view.image_srgb, view.photo_srgb), "error, pale = 0.2 or more"),
    ]
    alpha = view.raster.alpha[..., 0]
    if view.raster.depth is not None:
        depth = view.raster.expected_depth[..., 0]
        near, far = depth_range(depth, alpha)
        picture = depth_picture(depth, alpha, (near, far))
        cells.append(SheetCell(picture, f"depth, {near:.3g} (bright) to {far:.3g}"))
    if view.raster.normals is not None:
        cells.append(SheetCell(normal_picture(view.raster.normals, alpha), "normal, world xyz"))
    return SheetRow(f"{view.name}   {score_text(view.scores)}", tuple(cells))


def material_row(view: ShadedView, radiance: ImageScores | None = None) -> SheetRow:
    """Photo, shaded render, error, materials and normals, with the view's scores.

    Args:
        view: Shaded, of a model with materials.
        radiance: Scores of the same view by radiance alone, to compare with.
    """
    buffers = view.buffers
    assert buffers.albedo is not None
    assert buffers.roughness is not None and buffers.metallic is not None
    alpha = buffers.alpha[..., 0]
    sheen = []
    if buffers.sheen is not None:
        sheen = [SheetCell(value_picture(buffers.sheen[..., 0], alpha), "sheen, bright = 1")]
    cells = (
        SheetCell(srgb_picture(view.photo_srgb), "photo"),
        SheetCell(srgb_picture(view.image_srgb), "shaded"),
        SheetCell(error_picture(view.image_srgb, view.photo_srgb), "error, pale = 0.2 or more"),
        SheetCell(albedo_picture(buffers.albedo, buffers.alpha), "albedo"),
        SheetCell(value_picture(buffers.roughness[..., 0], alpha), "roughness, bright = 1"),
        SheetCell(value_picture(buffers.metallic[..., 0], alpha), "metallic, bright = 1"),
        *sheen,
        SheetCell(normal_picture(buffers.normals, alpha), "normal, world xyz"),
    )
    title = f"{view.name}   {score_text(view.scores)}"
    if radiance is not None:
        title += f"   (radiance alone: {score_text(radiance)})"
    return SheetRow(title, cells)


def light_row(light: EnvironmentLight) -> SheetRow:
    """A light as pictures: its mean as middle grey, and its brightest texel as white."""
    picture, factor = light_picture(light.radiance)
    cells = [SheetCell(picture, f"radiance x {factor:.3g}")]
    over_white = factor * float(light.radiance.max())
    if over_white > 1.0:
        picture, factor = light_picture(light.radiance, -math.log2(over_white))
        cells.append(SheetCell(picture, f"radiance x {factor:.3g}, peak white"))
    return SheetRow("light: +Z at the top, +X in the middle, +Y left of it", tuple(cells))


def write_sheet(
    rows: Sequence[SheetRow], light: EnvironmentLight | None, path: Path, title: str = ""
) -> None:
    """Write the contact sheet of held-out views, and of the light below them, as a PNG.

    Args:
        rows: At least one, of `material_row` or `radiance_row`.
        light: Recovered or given; None leaves it out.
        path: File to create or replace.
        title: First line of the sheet; empty for none.

    Raises:
        ValueError: No views.
        OSError: The file cannot be written.
    """
    lights = [] if light is None else [light_row(light)]
    save_png(path, contact_sheet([*rows, *lights] if rows else [], title))


def _scaled(picture: UInt8[np.ndarray, "height width 3"], width: int) -> Image.Image:
    """The picture at the given width; small ones keep their pixels visible."""
    image = Image.fromarray(picture)
    size = (width, max(1, round(image.height * width / image.width)))
    filtering = Image.Resampling.NEAREST if image.width < width else Image.Resampling.LANCZOS
    return image.resize(size, filtering)


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, its middle left out where it is wider than `width` pixels."""
    text = " ".join(text.splitlines())
    if font.getlength(text) <= width:
        return text
    keep = math.floor(len(text) * width / font.getlength(text))
    while keep > 2:
        shorter = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
        if font.getlength(shorter) <= width:
            return shorter
        keep -= 1
    return ""
