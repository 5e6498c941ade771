"""How do features, matches and poses come from photographs, step by step, through pycolmap?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pycolmap
from tqdm import tqdm

from splatir.data.photo_folder import PhotoFolder
from splatir.data.sfm_pairs import pairs_to_match
from splatir.data.sfm_photos import PreparedPhoto, prepare_photos, shared_cameras
from splatir.settings import Settings, SettingsError, check_range

# Fewer photographs make no model worth training on.
MIN_PHOTOS = 3
# Features per photograph: of few photographs all, of many fewer, as matching grows with both.
_MANY, _FEATURES, _FEATURES_OF_MANY = 150, 8192, 4096
# Photographs searched for features, and pairs matched, between two moves of the progress bar.
_PHOTOS_AT_ONCE, _PAIRS_AT_ONCE = 8, 60
# COLMAP's guess where EXIF says nothing: focal length over the longer side, 45 degrees.
_DEFAULT_FOCAL_RATIO = 1.2
# Below this registered share the mapping is tried again with thresholds that accept less.
_WORTH_ANOTHER_TRY = 0.9
# Of the adjustment in the pixels of the files, which starts at its goal but for rounded sizes.
_FINAL_ITERATIONS = 20

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class SfmSettings(Settings):
    """How poses are found.

    Attributes:
        max_size: Features are looked for on pictures of at most this many pixels on the longer
            side. Smaller is faster and finds less.
        camera_model: COLMAP's lens model. Photographs of one folder with the same size, device and
            focal length share one camera.
        min_registered: Share of the photographs that must get a pose; with fewer nothing is
            written.
        threads: Of everything; 0 takes all processors.
        seed: Of the mapper's random samples.
    """

    max_size: int = 1600
    camera_model: str = "SIMPLE_RADIAL"
    min_registered: float = 0.5
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no reconstruction can follow.

        Raises:
            SettingsError: A value out of range.
        """
        check_range(self, "max_size", 64)
        check_range(self, "min_registered", 0, 1)
        check_range(self, "threads", 0)
        if self.camera_model not in pycolmap.CameraModelId.__members__:
            raise SettingsError(
                f"camera_model must be one of COLMAP's, such as SIMPLE_RADIAL or OPENCV, got "
                f"{self.camera_model}."
            )


class SfmWork:
    """The temporary folder of a reconstruction, with its small pictures and its database.

    Pictures have numbers for names there: COLMAP's lists of pairs know no spaces.
    """

    def __init__(self, folder: Path, settings: SfmSettings, threads: int) -> None:
        """Start with nothing done; the steps are to be taken in the order they stand in here.

        Args:
            folder: Empty and writable; whoever made it removes it.
            settings: How.
            threads: At most.
        """
        self._database = folder / "database.db"
        self._pictures = folder / "pictures"
        self._pictures.mkdir()
        self._folder = folder
        self._settings = settings
        self._threads = threads
        self._numbered: dict[str, str] = {}

    def prepare(self, photos: PhotoFolder) -> tuple[list[PreparedPhoto], list[tuple[str, str]]]:
        """Decode all photographs; returns the sound ones, and the names and faults of others."""
        self._numbered = {name: f"{i:06d}.png" for i, name in enumerate(photos.names)}
        prepared, broken = [], []
        found = prepare_photos(
            photos,
            self._settings.max_size,
            self._threads,
            lambda name: self._pictures / self._numbered[name],
        )
        for name, photo, fault in tqdm(found, "reading", len(photos.names), unit="photo"):
            if photo is None:
                broken.append((name, fault))
            else:
                prepared.append(photo)
        return prepared, broken

    def find_features(self, prepared: Sequence[PreparedPhoto]) -> None:
        """SIFT features of every photograph, and the cameras that they share."""
        options = pycolmap.FeatureExtractionOptions()
        options.num_threads = self._threads
        options.use_gpu = False
        many = len(prepared) > _MANY
        options.sift.max_num_features = _FEATURES_OF_MANY if many else _FEATURES
        with tqdm(total=len(prepared), desc="features", unit="photo") as bar:
            for group in shared_cameras(prepared):
                reader = self._camera_of(group[0])
                for chunk in _chunks(group, _PHOTOS_AT_ONCE):
                    pycolmap.extract_features(
                        self._database,
                        self._pictures,
                        image_names=[self._numbered[photo.name] for photo in chunk],
                        reader_options=reader,
                        extraction_options=options,
                        device=pycolmap.Device.cpu,
                    )
                    bar.update(len(chunk))

    def _camera_of(self, photo: PreparedPhoto) -> pycolmap.ImageReaderOptions:
        """Write the camera of a group of photographs; options that make all of them use it."""
        ratio = photo.group.focal_ratio
        focal = (ratio or _DEFAULT_FOCAL_RATIO) * max(photo.width, photo.height)
        model = self._settings.camera_model
        camera = pycolmap.Camera.create_from_model_name(0, model, focal, photo.width, photo.height)
        camera.has_prior_focal_length = ratio is not None
        database = pycolmap.Database.open(self._database)
        camera.camera_id = database.write_camera(camera)
        rig = pycolmap.Rig()
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig)
        database.close()
        return pycolmap.ImageReaderOptions(camera_model=model, existing_camera_id=camera.camera_id)

    def match(self, prepared: Sequence[PreparedPhoto]) -> None:
        """Matches of features, verified by epipolar geometry."""
        options = pycolmap.FeatureMatchingOptions()
        options.num_threads = self._threads
        options.use_gpu = False
        pairs = self._pairs(prepared)
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = self._folder / "pairs.txt"
        names = [self._numbered[photo.name] for photo in prepared]
        with tqdm(total=len(pairs), desc="matches", unit="pair") as bar:
            for chunk in _chunks(pairs, _PAIRS_AT_ONCE):
                lines = [f"{names[i]} {names[j]}" for i, j in chunk]
                pairing.match_list_path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                pycolmap.match_image_pairs(
                    self._database,
                    matching_options=options,
                    pairing_options=pairing,
                    device=pycolmap.Device.cpu,
                )
                bar.update(len(chunk))

    def _pairs(self, prepared: Sequence[PreparedPhoto]) -> list[tuple[int, int]]:
        database = pycolmap.Database.open(self._database)
        ids = {image.name: image.image_id for image in database.read_all_images()}
        descriptors = []
        for photo in prepared:
            number = ids[self._numbered[photo.name]]
            found = np.zeros((0, 128), np.uint8)
            if database.exists_descriptors(number):
                found = np.asarray(database.read_descriptors(number).data)
            descriptors.append(found)
        database.close()
        return pairs_to_match(descriptors, self._settings.seed)

    def map(self, prepared: Sequence[PreparedPhoto]) -> pycolmap.Reconstruction | None:
        """The model with most photographs, in the pixels and names of the files; None for none."""
        best = self._mapped(prepared, patient=False)
        if best is None or best.num_reg_images() < _WORTH_ANOTHER_TRY * len(prepared):
            other = self._mapped(prepared, patient=True)
            best = max((best, other), key=lambda m: 0 if m is None else m.num_reg_images())
        if best is None:
            return None
        return self._at_full_size(best, prepared)

    def _mapped(
        self, prepared: Sequence[PreparedPhoto], patient: bool
    ) -> pycolmap.Reconstruction | None:
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = self._threads
        options.random_seed = self._settings.seed
        options.extract_colors = False
        options.min_model_size = MIN_PHOTOS
        if patient:
            options.min_num_matches = 10
            options.mapper.init_min_num_inliers = 40
            options.mapper.init_min_tri_angle = 6.0
            options.mapper.abs_pose_min_num_inliers = 15
            options.mapper.abs_pose_min_inlier_ratio = 0.15
        folder = self._folder / ("again" if patient else "models")
        folder.mkdir()
        with tqdm(total=len(prepared), desc="poses", unit="photo") as bar:
            models = pycolmap.incremental_mapping(
                self._database,
                self._pictures,
                folder,
                options=options,
                initial_image_pair_callback=lambda: _advance(bar, 2),
                next_image_callback=lambda: _advance(bar, 1),
            )
        return max(models.values(), key=lambda m: m.num_reg_images(), default=None)

    def _at_full_size(
        self, model: pycolmap.Reconstruction, prepared: Sequence[PreparedPhoto]
    ) -> pycolmap.Reconstruction:
        """The model in pixels of the files, named like them, with colours, adjusted once more."""
        by_number = {self._numbered[photo.name]: photo for photo in prepared}
        model.extract_colors_for_all_images(self._pictures)
        for image in model.images.values():
            photo = by_number[image.name]
            image.name = photo.name
            scale = np.array([photo.group.width / photo.width, photo.group.height / photo.height])
            for point in image.points2D:
                point.xy = point.xy * scale
            camera = model.cameras[image.camera_id]
            if (camera.width, camera.height) != (photo.group.width, photo.group.height):
                camera.rescale(photo.group.width, photo.group.height)
        options = pycolmap.BundleAdjustmentOptions()
        options.print_summary = False
        options.ceres.solver_options.max_num_iterations = _FINAL_ITERATIONS
        options.ceres.solver_options.num_threads = self._threads
        everything = pycolmap.BundleAdjustmentConfig()
        for number in model.reg_image_ids():
            everything.add_image(number)
        everything.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        # Not pycolmap.bundle_adjustment, which turns COLMAP's log on again.
        pycolmap.create_default_bundle_adjuster(options, everything, model).solve()
        model.update_point_3d_errors()
        return model


def _chunks(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _advance(bar: tqdm, count: int) -> None:
    """Move a bar, not beyond its end: a mapper that starts anew registers photographs again."""
    bar.update(min(count, bar.total - bar.n))
