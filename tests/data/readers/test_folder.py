from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layout_trees import card
from PIL import Image
from places import ROOT

from ocl_bench.cards.task import load_task
from ocl_bench.core.errors import DataMissingError, SampleError, UsageError
from ocl_bench.data import open_data
from ocl_bench.data.readers.folder import rank_labels

CARD = """
name: my-photos
version: 1
family: discovery
data:
  reader: folder
  folder: photos
  split: test
  options: {images: images, masks: masks, void: 255, background: 0}
protocol: {crop: none, input: 64, score_at: 64}
metrics: [mbo_fg, fg_ari, ari]
main: mbo_fg
"""

CODES = np.zeros((20, 30), np.uint8)
CODES[2:10, 2:10], CODES[12:18, 5:25], CODES[0, :] = 1, 3, 255
RANKED = np.where(CODES == 3, 2, CODES.astype(int))
RANKED[CODES == 255] = -1


def write_folder(root: Path, names: tuple[str, ...] = ("a.jpg", "b.png"), images="images", masks="masks") -> Path:
    (root / images).mkdir(parents=True)
    (root / masks).mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(root / images / name)
        mask = Image.fromarray(CODES)
        mask.putpalette([value for i in range(256) for value in (i, 255 - i, 7 * i % 256)])
        mask.save(root / masks / f"{Path(name).stem}.png")
    return root


def folder_card(root: Path, **options):
    return card(reader="folder", folder=str(root), options=options)


def test_a_card_of_twelve_lines_and_a_folder_beside_it_are_enough(tmp_path, monkeypatch):
    write_folder(tmp_path / "photos")
    path = tmp_path / "my.yaml"
    path.write_text(CARD)
    assert len(CARD.strip().splitlines()) <= 12
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = open_data(load_task(path))
    assert data.kind == "supplied" and data.ids == ("a", "b") and data.revision.startswith("supplied-")
    for sample in data.reader:
        assert sample.image.shape == (20, 30, 3)
        assert np.array_equal(sample.truth.labels, RANKED)


def test_where_a_relative_folder_is_looked_for(tmp_path, monkeypatch):
    task = card(reader="folder", folder="photos")
    write_folder(tmp_path / "data/photos")
    assert open_data(task, data_root=tmp_path / "data").root == open_data(task, data_root=tmp_path / "data/photos").root
    with pytest.raises(DataMissingError, match="'images' and 'masks'"):
        open_data(task, data_root=tmp_path)
    monkeypatch.chdir(tmp_path / "data")
    assert len(open_data(task)) == 2
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCL_BENCH_DATA", str(tmp_path / "data"))
    assert len(open_data(task)) == 2


def test_voc_names_and_split_file(tmp_path):
    root = write_folder(
        tmp_path / "voc", ("2011_1.jpg", "2011_2.jpg", "2011_3.jpg"), "JPEGImages", "SegmentationObject"
    )
    (root / "sets").mkdir()
    (root / "sets/val.txt").write_text("2011_3\n2011_1\n")
    options = {"images": "JPEGImages", "masks": "SegmentationObject", "ids": "sets/{split}.txt"}
    task = card(reader="folder", folder=str(root), split="val", options=options)
    assert open_data(task).ids == ("2011_3", "2011_1")
    assert open_data(task, limit=1).ids == ("2011_3",)
    with pytest.raises(DataMissingError, match=r"train\.txt"):
        open_data(task, split="train")
    with pytest.raises(UsageError, match="no split 'train'"):
        open_data(folder_card(root, images="JPEGImages", masks="SegmentationObject"), split="train")


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "RGB", "RGBA"])
def test_every_mask_mode_gives_the_same_segments(tmp_path, mode):
    root = write_folder(tmp_path / "photos", ("a.png",))
    void: object = 255
    path = root / "masks/a.png"
    if mode == "L":
        Image.fromarray(CODES).save(path)
    elif mode == "I;16":
        Image.fromarray(np.where(CODES == 3, 40_000, CODES).astype(np.uint16)).save(path)
    elif mode.startswith("RGB"):
        colours = {0: (0, 0, 0), 1: (255, 0, 0), 3: (0, 128, 0), 255: (224, 224, 192)}
        void = [224, 224, 192]
        pixels = np.array([[colours[int(v)] for v in row] for row in CODES], np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    with Image.open(path) as written:
        assert written.mode == mode
    assert np.array_equal(open_data(folder_card(root, void=void)).reader[0].truth.labels, RANKED)


def test_background_and_void_are_options():
    codes = np.array([[0, 7], [9, 255]])
    assert rank_labels(codes, False, 255, 7).tolist() == [[1, 0], [2, -1]]
    assert rank_labels(codes, False, None, None).tolist() == [[1, 2], [3, 4]]
    assert rank_labels(codes, True, 255, 0).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="is a colour"):
        rank_labels(codes, False, (1, 2, 3), 0)


def test_bad_samples_are_named_and_leave_the_others_alone(tmp_path):
    root = write_folder(tmp_path / "photos", ("a.png", "b.png", "c.png", "d.png", "e.png"))
    (root / "masks/a.png").unlink()
    (root / "images/b.png").write_bytes((root / "images/b.png").read_bytes()[:50])
    Image.fromarray(CODES.T).save(root / "masks/c.png")
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "masks/d.png")
    data = open_data(folder_card(root, max_objects=100))
    for index, reason in enumerate(["mask file is missing", "cannot be read", "mask size 20x30", "max_objects"]):
        with pytest.raises(SampleError, match=reason) as caught:
            data.reader[index]
        assert data.ids[index] + ".png" in str(caught.value) and "\n" not in str(caught.value)
    assert np.array_equal(data.reader[4].truth.labels, RANKED)


def test_a_mask_that_is_really_a_jpeg_is_refused(tmp_path):
    root = write_folder(tmp_path / "photos", ("a.png",))
    Image.fromarray(CODES).save(root / "masks/a.png", format="JPEG")
    with pytest.raises(SampleError, match="not a PNG file"):
        open_data(folder_card(root)).reader[0]


def test_no_path_from_a_file_is_trusted(tmp_path):
    root = write_folder(tmp_path / "photos")
    for entry in ("../a", "/etc/passwd", "..", "x\\y", ".hidden"):
        (root / "ids.txt").write_text(f"a\n{entry}\n")
        with pytest.raises(UsageError, match="id 2"):
            open_data(folder_card(root, ids="ids.txt"))
    (root / "ids.txt").write_text("a\na\n")
    with pytest.raises(UsageError, match="twice"):
        open_data(folder_card(root, ids="ids.txt"))
    for field in ("images", "masks", "ids"):
        for value in ("../photos", "/etc", "C:\\data"):
            with pytest.raises(UsageError, match=f"data.options.{field}"):
                open_data(folder_card(root, **{field: value}))
    with pytest.raises(UsageError, match="not a plain name"):
        open_data(folder_card(root, ids="{split}.txt"), split="../secret")


def test_an_id_without_an_image_fails_alone(tmp_path):
    root = write_folder(tmp_path / "photos")
    (root / "ids.txt").write_text("b\nghost\n")
    data = open_data(folder_card(root, ids="ids.txt"))
    assert data.reader[0].id == "b"
    with pytest.raises(SampleError, match="image file is missing"):
        data.reader[1]


def test_unknown_option_and_ambiguous_image(tmp_path):
    root = write_folder(tmp_path / "photos")
    with pytest.raises(UsageError, match=r"data\.options\.mask: .* known options: images, masks"):
        open_data(folder_card(root, mask="masks"))
    with pytest.raises(UsageError, match="no stand-in"):
        open_data(folder_card(root), stand_in_seed=1)
    Image.fromarray(CODES).save(root / "images/a.png")
    with pytest.raises(UsageError, match=r"'a\.jpg' and 'a\.png'"):
        open_data(folder_card(root))


def test_the_card_printed_in_the_documentation_is_valid_and_short(tmp_path):
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    block = next(part.split("```")[0] for part in page.split("```yaml\n")[1:] if part.startswith("name: my-photos"))
    assert len(block.strip().splitlines()) <= 12
    write_folder(tmp_path / "my_photos")
    (tmp_path / "my.yaml").write_text(block)
    assert len(open_data(load_task(tmp_path / "my.yaml"))) == 2


def test_every_format_of_images_is_read_and_the_rest_is_named(tmp_path):
    names = ("a.jpg", "b.webp", "c.bmp", "d.tif", "e.JPG", "f.PNG", "g.TIFF")
    root = write_folder(tmp_path / "photos", names)
    (root / "images/Thumbs.db").touch()
    (root / "images/h.gif").touch()
    (root / "images/nested").mkdir()
    (root / "images/.hidden.txt").touch()
    Image.fromarray(CODES).save(root / "masks/z.png")
    data = open_data(folder_card(root))
    assert data.ids == ("a", "b", "c", "d", "e", "f", "g")
    assert all(sample.image.shape == (20, 30, 3) for sample in data.reader)
    assert "not read: 3 in images (Thumbs.db, h.gif, nested), 1 masks without image (z.png)" in data.note
    (root / "ids.txt").write_text("a\nb\n")
    assert "z.png" not in open_data(folder_card(root, ids="ids.txt")).note, "a list says what is left out"


def test_a_copy_in_another_format_changes_nothing(tmp_path):
    root = write_folder(tmp_path / "photos", ("a.jpg",))
    before = open_data(folder_card(root))
    assert "not read" not in before.note
    Image.fromarray(CODES).save(root / "images/a.bmp")
    after = open_data(folder_card(root))
    assert after.revision == before.revision and "1 in images (a.bmp)" in after.note
    assert np.array_equal(after.reader[0].image, before.reader[0].image)
    for name in ("b.bmp", "b.webp"):
        Image.fromarray(CODES).save(root / "images" / name)
    with pytest.raises(UsageError, match=r"'b\.bmp' and 'b\.webp' have one id"):
        open_data(folder_card(root))


def test_masks_with_capitals_are_read_and_other_formats_are_named(tmp_path):
    root = write_folder(tmp_path / "photos", ("a.png", "b.png"))
    (root / "masks/a.png").rename(root / "masks/a.PNG")
    (root / "masks/b.png").unlink()
    Image.fromarray(CODES).save(root / "masks/b.tif")
    data = open_data(folder_card(root))
    assert np.array_equal(data.reader[0].truth.labels, RANKED)
    with pytest.raises(SampleError, match=r"b\.tif: mask cannot be read \(not a PNG file\)"):
        data.reader[1]


def test_number_255_is_an_object_among_larger_ones_unless_the_card_says_void(tmp_path, caplog):
    root = write_folder(tmp_path / "photos", ("a.png",))
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(root / "masks/a.png")
    labels = open_data(folder_card(root)).reader[0].truth.labels
    assert labels.max() == 599 and (labels >= 0).all()
    assert "masks/a.png: has numbers above 255, and 255 is read as an object" in caplog.text
    caplog.clear()
    other = write_folder(tmp_path / "other", ("a.png",))
    (root / "masks/a.png").rename(other / "masks/a.png")
    labels = open_data(folder_card(other, void=255)).reader[0].truth.labels
    assert labels.max() == 598 and (labels == -1).sum() == 1
    assert "255 is read as void, as data.options.void says" in caplog.text


def test_large_numbers_are_ranked(tmp_path):
    root = write_folder(tmp_path / "photos", ("a.png",))
    numbers = np.zeros((20, 30), np.uint16)
    numbers[:5], numbers[5:9], numbers[9:12] = 40000, 32768, 65535
    Image.fromarray(numbers).save(root / "masks/a.png")
    labels = open_data(folder_card(root)).reader[0].truth.labels
    assert labels.dtype == np.int16 and labels[[0, 5, 9, 12], 0].tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_of_ids_from_another_system(tmp_path, encoding):
    root = write_folder(tmp_path / "photos")
    (root / "ids.txt").write_bytes("a\r\nb\r\n".encode(encoding))
    assert open_data(folder_card(root, ids="ids.txt")).ids == ("a", "b")
    (root / "ids.txt").write_bytes("ä\n".encode("latin-1"))
    with pytest.raises(DataMissingError, match="not UTF-8"):
        open_data(folder_card(root, ids="ids.txt"))


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((0, 85, 170, 255), True),
        ((0, 255), True),
        ((51, 102, 153, 204, 255), True),
        ((0, 127, 255), True),
        ((0, 1, 255), False),
        ((0, 15, 255), False),
        ((0, 85, 170), False),
    ],
)
def test_numbers_that_are_spread_up_to_255_are_remarked(tmp_path, caplog, numbers, said):
    root = write_folder(tmp_path / "photos")
    for name in ("a", "b"):
        Image.fromarray(np.array(numbers, np.uint8)[np.arange(600).reshape(20, 30) * len(numbers) // 600]).save(
            root / f"masks/{name}.png"
        )
    for _ in open_data(folder_card(root)).reader:
        pass
    text = f"numbers are spread evenly up to 255 ({', '.join(map(str, numbers))})"
    assert caplog.text.count(text) == int(said)
    if said:
        assert (
            "255 is read as void; set data.options.void to null if it is an object, or to 255 if it is not"
            in caplog.text
        )
    caplog.clear()
    for void, labels in ((None, len(set(numbers) - {0})), (255, len(set(numbers) - {0, 255}))):
        assert open_data(folder_card(root, void=void)).reader[0].truth.labels.max() == labels
    assert not caplog.text


@pytest.mark.parametrize("name", ["a.HEIC", "album/a.jpg"])
def test_a_folder_without_images_is_refused_with_what_it_holds(tmp_path, name):
    write_folder(tmp_path, ())
    (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "images" / name).write_bytes(b"x")
    with pytest.raises(DataMissingError, match=f"directly in it; it holds {name.split('/')[0]}"):
        open_data(folder_card(tmp_path))
