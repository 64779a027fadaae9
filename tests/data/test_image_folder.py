"""A folder of images: read when needed, upright, of one size, and a file that is wrong is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from functrain.data import ImageFolder, Loader, image_folder
from functrain.data.fitted import preprocessor_from
from functrain.data.image_files import read_image
from functrain.data.sampling import labels_of
from functrain.foundation.errors import DataError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = rng.integers(0, 200, (6, 8, 3), np.uint8) + label * 50
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    return tmp_path


def test_examples_are_read_one_by_one_and_labelled_by_their_folder(folder):
    data = ImageFolder(folder)
    assert data.classes == ("cat", "dog")
    assert data.targets.tolist() == [0] * 10 + [1] * 10
    image, label = data[13]
    assert image.dtype == torch.float32
    assert image.shape == (3, 6, 8)
    assert label == 1
    expected = np.asarray(Image.open(folder / "dog" / "3.png"), np.float32) / 255
    assert torch.equal(image, torch.from_numpy(expected).permute(2, 0, 1))
    images, labels = next(iter(Loader(ImageFolder(folder, mode="grey", size=(4, 5)), 20, shuffle=False, num_workers=1)))
    assert images.shape == (20, 1, 4, 5)
    assert torch.equal(labels, data.targets)


def test_splits_are_stratified_or_those_of_the_folder(folder, tmp_path_factory):
    parts = [image_folder(split, path=str(folder)) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [12, 4, 4]
    assert [int(np.sum(labels_of(part))) for part in parts] == [6, 2, 2]
    divided = tmp_path_factory.mktemp("divided")
    (divided / "val").mkdir()
    (folder / "dog").rename(divided / "val" / "dog")
    (divided / "train").mkdir()
    for name in ("cat", "dog"):
        (divided / "train" / name).mkdir()
        Image.new("L", (4, 4)).save(divided / "train" / name / "0.png")
    val = image_folder("val", path=str(divided))
    assert val.targets.tolist() == [1] * 10  # no cat among them
    assert image_folder("test", path=str(divided)) is None
    (divided / "val" / "cow").mkdir()
    with pytest.raises(DataError, match="cow is the folder of no class; the classes are cat, dog"):
        image_folder("val", path=str(divided))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_image_is_turned_as_the_camera_says(tmp_path, orientation):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0, 0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    corner = {1: (0, 0), 3: (3, 5), 6: (0, 3), 8: (5, 0)}[orientation]
    found = read_image(tmp_path / "a.png")[0]
    assert found.shape == ((4, 6) if orientation in (1, 3) else (6, 4))
    assert found[corner] == 1
    assert found.sum() == 1


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("I;16", 1)]
)
def test_every_kind_of_image_lies_between_0_and_1(tmp_path, mode, channels):
    grey = Image.fromarray(np.full((3, 3), 255, np.uint8))
    deep = Image.fromarray(np.full((3, 3), 65535, np.uint16))
    (deep if mode == "I;16" else grey.convert(mode)).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.shape == (channels, 3, 3)
    assert (found == 1).all()
    assert read_image(tmp_path / "a.png", "rgb").shape == (3, 3, 3)
    assert read_image(tmp_path / "a.png", "grey").shape == (1, 3, 3)


def test_wrong_files_are_named(folder):
    content = (folder / "dog" / "3.png").read_bytes()
    (folder / "dog" / "3.png").write_bytes(content[: len(content) // 2])
    (folder / "dog" / "4.png").write_text("no image")
    Image.new("RGB", (9, 9)).save(folder / "dog" / "5.png")
    data = ImageFolder(folder)
    for index, words in ((13, r"dog/3\.png cannot be read"), (14, r"dog/4\.png cannot be read")):
        with pytest.raises(DataError, match=words):
            data[index]
    with pytest.raises(DataError, match=r"dog/5\.png is 9 x 9 pixels .*cat/0\.png, 6 x 8\. Resample .* size=\[6, 8\]"):
        data[15]
    assert ImageFolder(folder, size=6)[15][0].shape == (3, 6, 6)


def test_a_folder_without_classes_or_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(DataError, match="has no subfolder: images of a class lie in a folder"):
        ImageFolder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"there is no image in .*cat, the folder of a class"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="mode must be 'rgb' or 'grey'"):
        ImageFolder(tmp_path, mode="RGB")


def test_its_preprocessor_is_applied_to_other_images(folder):
    fitted = preprocessor_from(ImageFolder(folder, size=4, mode="grey").preprocessor.to_json())
    assert fitted.classes == ("cat", "dog")
    assert torch.equal(fitted(folder / "dog" / "3.png"), ImageFolder(folder, size=4, mode="grey")[13][0])
