import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as oracle

from fairq_book.cli.main import main
from fairq_utils.data import archives
from fairq_utils.data.archives import (
    content_digests,
    decode_images,
    find_members,
    pick_members,
    state_of_members,
)
from fairq_utils.data.tars import refuse_huge_headers
from fairq_utils.errors import BadInput


def is_jpeg(name: str) -> bool:
    return name.endswith(".jpg")


def picture(seed: int, width: int = 40, height: int = 40) -> Image.Image:
    """Smooth, so that JPEG and shrinking have something to keep."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    f"{place}{number}.jpg": encoded(picture(number)) for number, place in enumerate(["", "b/", "b/c/"] * 3)
}


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": write_folder,
    "images.zip": write_zip,
    "images.tar": write_tar,
    "images.tar.gz": write_tar,
    "images.tgz": write_tar,
}
ARCHIVES = [name for name in WRITERS if name != "folder"]


def refusal(action: Callable[[], object]) -> str:
    """What the action is refused with: one sentence."""
    with pytest.raises(BadInput) as refused:
        action()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return sentence


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("packed", WRITERS)
def test_every_packing_holds_the_same_files(tmp_path, packed):
    path = WRITERS[packed](tmp_path / packed, FILES | {"read.me": b"not wanted"})
    members = find_members([path], is_jpeg)
    assert sorted(member.name for member in members) == sorted(FILES)
    plain = pick_members(write_folder(tmp_path / "plain", FILES), [member.name for member in members])
    assert content_digests(members) == content_digests(plain)
    assert torch.equal(decode_images(members, image_size=16), decode_images(plain, image_size=16))


def test_an_order_other_than_the_stored_one_is_kept(tmp_path):
    path = write_tar(tmp_path / "images.tgz", FILES)
    members = find_members([path], is_jpeg)
    assert content_digests(members[::-2]) == content_digests(members)[::-2]
    assert torch.equal(
        decode_images(members[::-2], image_size=16), decode_images(members, image_size=16).flip(0)[::2]
    )


def test_archives_in_a_folder_are_read_and_those_of_others_are_not(tmp_path):
    names = sorted(FILES)
    write_folder(tmp_path, {names[0]: FILES[names[0]]})
    (tmp_path / "deep").mkdir()
    write_zip(tmp_path / "deep" / "part1.ZIP", {names[1]: FILES[names[1]]})
    write_tar(tmp_path / "part2.tgz", {names[2]: FILES[names[2]]})
    write_zip(tmp_path / "others.zip", {"../letter.txt": b"whose names are no business of ours"})
    assert sorted(member.name for member in find_members([tmp_path], is_jpeg)) == names[:3]
    assert len(find_members([tmp_path, tmp_path, tmp_path / "part2.tgz"], is_jpeg)) == 3


@pytest.mark.parametrize("packed", WRITERS)
def test_what_macos_leaves_behind_is_passed_over(tmp_path, packed):
    leftovers = {"__MACOSX/b/._1.jpg": b"?", "b/._1.jpg": b"?", "b/.DS_Store": b"?", "__MACOSX/x.jpg": b"?"}
    path = WRITERS[packed](tmp_path / packed, leftovers | FILES)
    assert len(find_members([path], lambda name: True)) == len(FILES)


def test_two_files_under_one_name_in_an_archive_are_two(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("x.jpg", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.jpg", b"other")
    assert len(set(content_digests(find_members([tmp_path], is_jpeg)))) == 2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("packed", ARCHIVES)
@pytest.mark.parametrize(
    "name", ["/x.jpg", "../x.jpg", "b/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", "C:x.jpg", "b/.."]
)
def test_an_archive_whose_names_lead_out_of_it_is_refused(tmp_path, packed, name):
    path = WRITERS[packed](tmp_path / packed, FILES | {name: FILES["0.jpg"]})
    assert f"{name!r} leads out of" in refusal(lambda: find_members([path], is_jpeg))


@pytest.mark.parametrize("name", ["/x.jpg", "../x.jpg", "b/../../x.jpg"])
def test_a_list_may_not_lead_out_of_its_folder(tmp_path, name):
    assert "leads out of" in refusal(lambda: pick_members(tmp_path, [name]))


def test_a_listed_file_that_is_missing_is_named(tmp_path):
    assert "'x.jpg' is not in" in refusal(lambda: pick_members(tmp_path, ["x.jpg"]))


def test_dots_inside_a_name_lead_nowhere(tmp_path):
    assert (
        len(
            find_members([write_zip(tmp_path / "images.zip", {"a..b.jpg": b"", "..a/b...jpg": b""})], is_jpeg)
        )
        == 2
    )


@pytest.mark.parametrize("name", ["nowhere", "nowhere.zip", "some.txt"])
def test_a_wrong_path_is_refused(tmp_path, name):
    (tmp_path / "some.txt").write_text("text")
    assert "correct the path" in refusal(lambda: find_members([tmp_path / name], is_jpeg))
    assert "correct the path" in refusal(lambda: state_of_members([tmp_path / name], is_jpeg))


@pytest.mark.parametrize("packed", ARCHIVES)
@pytest.mark.parametrize("content", [b"", b"text that calls itself an archive" * 100])
def test_what_is_no_archive_is_refused(tmp_path, packed, content):
    (tmp_path / packed).write_bytes(content)
    assert "cannot be read" in refusal(lambda: find_members([tmp_path], is_jpeg))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    for packed in ARCHIVES:
        WRITERS[packed](folder / packed, FILES)
    return folder


@pytest.mark.parametrize("packed", ARCHIVES)
@given(data=st.data())
def test_an_archive_that_is_cut_short_is_refused(whole, tmp_path_factory, packed, data):
    content = (whole / packed).read_bytes()
    # A tar is filled up with zeros, of which one block is enough.
    end = len(content.rstrip(b"\0")) if packed.endswith(".tar") else len(content) - 1
    cut = data.draw(st.one_of(st.integers(0, end), st.integers(0, end // 512).map(lambda block: block * 512)))
    path = tmp_path_factory.mktemp("cut") / packed
    path.write_bytes(content[:cut])
    assert "cannot be read" in refusal(lambda: content_digests(find_members([path], is_jpeg)))
    shutil.rmtree(path.parent)


def test_a_zip_with_a_wrong_byte_is_refused(tmp_path, whole):
    content = bytearray((whole / "images.zip").read_bytes())
    content[300] ^= 1
    (tmp_path / "images.zip").write_bytes(content)
    assert "cannot be read" in refusal(
        lambda: decode_images(find_members([tmp_path], is_jpeg), image_size=16)
    )


@pytest.mark.parametrize("zero", [0, 2])
def test_a_zip_with_a_zero_byte_in_a_name_is_refused(tmp_path, zero):
    content = bytearray(write_zip(tmp_path / "images.zip", {"b/x.jpg": FILES["0.jpg"]}).read_bytes())
    content[content.rindex(b"b/x.jpg") + zero] = 0
    (tmp_path / "images.zip").write_bytes(content)
    assert "zero byte" in refusal(lambda: find_members([tmp_path], is_jpeg))


@pytest.mark.parametrize("packed", ARCHIVES)
@given(
    damage=st.lists(
        # Most of the headers stand at the two ends.
        st.tuples(st.integers(-400, 600) | st.integers(0, 10**5), st.integers(0, 255)),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_is_damaged_is_refused_in_one_sentence_or_harmless(whole, tmp_path_factory, packed, damage):
    content = bytearray((whole / packed).read_bytes())
    for place, byte in damage:
        content[place % len(content)] = byte
    path = tmp_path_factory.mktemp("damaged") / packed
    path.write_bytes(content)
    try:
        assert decode_images(find_members([path], is_jpeg), image_size=16).shape[0] <= len(FILES)
    except BadInput as error:
        assert "\n" not in str(error)  # noqa: PT017 - either may happen
    shutil.rmtree(path.parent)


def test_an_archive_that_changed_meanwhile_is_refused(tmp_path):
    members = find_members([write_zip(tmp_path / "images.zip", FILES)], is_jpeg)
    write_zip(tmp_path / "images.zip", dict(list(FILES.items())[:-1]))
    assert "changed while it was read" in refusal(lambda: decode_images(members, image_size=16))


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path, whole):
    content = bytearray((whole / "images.tgz").read_bytes())
    content[-6] ^= 1
    (tmp_path / "images.tgz").write_bytes(content)
    assert "CRC" in refusal(lambda: find_members([tmp_path], is_jpeg))


def test_a_zip_with_a_password_is_refused(tmp_path):
    content = bytearray(write_zip(tmp_path / "images.zip", {"x.jpg": FILES["0.jpg"]}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "images.zip").write_bytes(content)
    assert "password" in refusal(lambda: content_digests(find_members([tmp_path], is_jpeg)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_tar_cannot_point_at_files_of_ours(tmp_path, kind):
    (tmp_path / "secret").write_bytes(FILES["0.jpg"])
    entry = tarfile.TarInfo("x.jpg")
    entry.type, entry.linkname = kind, str(tmp_path / "secret")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.addfile(entry)
    assert "'x.jpg' is a link" in refusal(
        lambda: content_digests(find_members([tmp_path / "images.tar"], is_jpeg))
    )


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["faces.tar", "faces.TGZ"])
def test_a_tar_with_a_huge_header_is_refused_before_it_is_read(tmp_path, name, pack, kind):
    entry = tarfile.TarInfo("note")
    entry.type, entry.size = kind, 3 * 2**30
    path = tmp_path / "below" / name
    path.parent.mkdir()
    content = write_tar(tmp_path / "whole.tar", {"0.jpg": FILES["0.jpg"]}).read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512) + entry.tobuf() + bytes(2**21)
    path.write_bytes(pack(content))
    said = refusal(lambda: refuse_huge_headers([tmp_path]))
    assert str(path) in said
    assert "has a header of 3,221,22" in said


def test_the_commands_that_read_images_refuse_such_a_tar(tmp_path):
    bomb = tmp_path / "faces.tar"
    with tarfile.open(bomb, "w", format=tarfile.PAX_FORMAT, pax_headers={"note": 2**21 * "a"}) as archive:
        archive.addfile(tarfile.TarInfo("1_0_0_1.jpg"))
    out = str(tmp_path / "out")
    asked = ["--model", "resnet18-16", "--treatment", "int4", "--dataset", "utkface"]
    audited = ["audit", "--out", out, *asked, "--root"]
    for command in (["data", "utkface"], audited):
        done = CliRunner().invoke(main, [*command, str(bomb)])
        assert (done.exit_code, "has a header of 2,09" in done.output) == (2, True), done.output


def test_what_is_no_tar_is_left_to_those_who_read_it(tmp_path):
    for name, content in {"a.tar": b"hello", "b.tgz": b"hello", "c.tar": b"", "d.jpg": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    write_tar(tmp_path / "e.tar", FILES)
    refuse_huge_headers([tmp_path, tmp_path / "nowhere.tar"])


def enormous(side: int) -> bytes:
    return encoded(Image.new("1", (side, side)), "PNG")


BAD_IMAGES = {
    "empty": (lambda: b"", "no image"),
    "text": (lambda: b"a text file\nwith lines", "no image"),
    "cut short": (lambda: FILES["0.jpg"][: len(FILES["0.jpg"]) // 2], "truncated"),
    "cut png": (lambda: encoded(picture(0), "PNG")[:-300], "cannot be shown"),
    "another kind": (lambda: encoded(picture(0), "GIF"), "no image"),
    "sixteen bits": (lambda: encoded(Image.new("I;16", (20, 20)), "PNG"), "no 8 bits"),
    "65 million pixels": (lambda: enormous(8100), "too many"),
    "100 million pixels": (lambda: enormous(10_000), "exceeds limit"),
    "196 million pixels": (lambda: enormous(14_000), "exceeds limit"),
}


@pytest.mark.parametrize(
    ("bad", "packed"),
    [
        (bad, packed)
        for bad in BAD_IMAGES
        for packed in (["folder"] if "million" in bad else ["folder", "images.tgz", "images.zip"])
    ],
)
def test_one_bad_image_stops_the_import_and_is_named(tmp_path, packed, bad):
    make, why = BAD_IMAGES[bad]
    members = find_members([WRITERS[packed](tmp_path / packed, FILES | {"bad.jpg": make()})], is_jpeg)
    sentence = refusal(lambda: decode_images(members, image_size=16))
    assert "'bad.jpg'" in sentence
    assert why in sentence.lower()


@pytest.mark.parametrize("packed", ["folder", "images.zip", "images.tgz"])
def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, packed):
    size = 64 * 2**20 + 1
    if packed == "folder":
        write_folder(tmp_path / packed, {"huge.jpg": b""})
        os.truncate(tmp_path / packed / "huge.jpg", size)
    else:
        WRITERS[packed](tmp_path / packed, {"huge.jpg": bytes(size)})
    members = find_members([tmp_path / packed], is_jpeg)
    assert "67,108,865 bytes" in refusal(lambda: content_digests(members))
    assert "67,108,865 bytes" in refusal(lambda: decode_images(members, image_size=16))


def test_a_file_that_went_away_meanwhile_is_said(tmp_path):
    members = find_members([write_folder(tmp_path, FILES)], is_jpeg)
    (tmp_path / "0.jpg").unlink()
    assert "No such file" in refusal(lambda: decode_images(members, image_size=16))


# ---------------------------------------------------------------- what becomes of an image


@pytest.mark.parametrize("side", [16, 17, 32, 64])
def test_square_images_are_shrunk_as_torchvision_does(tmp_path, side):
    write_folder(tmp_path, FILES)
    images = decode_images(pick_members(tmp_path, FILES), image_size=side)
    for image, content in zip(images, FILES.values(), strict=True):
        expected = oracle.resize(Image.open(io.BytesIO(content)), [side, side])
        assert torch.equal(image, oracle.pil_to_tensor(expected))


@pytest.mark.parametrize("shape", [(60, 40), (40, 80)])
def test_other_images_lose_what_lies_outside_the_middle_square(tmp_path, shape):
    whole = picture(1, *shape)
    write_folder(tmp_path, {"x.png": encoded(whole, "PNG")})
    (image,) = decode_images(pick_members(tmp_path, ["x.png"]), image_size=20)
    expected = oracle.pil_to_tensor(oracle.center_crop(oracle.resize(whole, [20]), [20, 20]))
    assert (image.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_depth_becomes_red_green_and_blue(tmp_path, mode):
    image = Image.new("RGB", (20, 20), (255, 255, 255)).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    options = {"transparency": bytes(256)} if mode == "P" else {}
    write_folder(tmp_path, {"x": encoded(image, kind, **options)})
    assert decode_images(pick_members(tmp_path, ["x"]), image_size=16).eq(255).all()


def test_a_photograph_is_turned_upright_on_request(tmp_path):
    held_sideways = Image.new("RGB", (20, 20), (255, 0, 0))
    held_sideways.paste((0, 0, 255), (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the left of what is stored is the top of what was seen
    write_folder(tmp_path, {"x.jpg": encoded(held_sideways, exif=exif, quality=95)})
    as_stored, as_seen = (
        decode_images(pick_members(tmp_path, ["x.jpg"]), image_size=16, upright=u)[0] for u in (False, True)
    )
    assert as_stored[2, 8, 1] > 200 > as_stored[2, 8, 14]
    assert as_seen[2, 1, 8] > 200 > as_seen[2, 14, 8]


def test_the_reader_does_not_run_far_ahead_of_the_decoders(tmp_path, monkeypatch):
    read, decoded, ahead = [], [], []
    contents, pixels = archives._contents, archives._pixels

    def reading(members):
        for row, content in contents(members):
            read.append(row)
            ahead.append(len(read) - len(decoded))
            yield row, content

    def decoding(*arguments):
        time.sleep(0.002)
        decoded.append(1)
        return pixels(*arguments)

    monkeypatch.setattr(archives, "_contents", reading)
    monkeypatch.setattr(archives, "_pixels", decoding)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    write_folder(tmp_path, FILES)
    assert (
        len(decode_images(pick_members(tmp_path, FILES) * 10, image_size=16)) == len(read) == 10 * len(FILES)
    )
    assert max(ahead) <= 4 * 2 + 2


def test_no_members_are_no_images():
    assert decode_images([], image_size=16).shape == (0, 3, 16, 16)


# ---------------------------------------------------------------- the digest of what is there


@pytest.mark.parametrize("packed", WRITERS)
def test_the_state_follows_the_content_and_not_the_place(tmp_path, packed):
    def made(place: str, files: dict[str, bytes]) -> str:
        (tmp_path / place).mkdir()
        WRITERS[packed](tmp_path / place / packed, files)
        for path in (tmp_path / place).rglob("*.jpg"):
            os.utime(path, (0, 0))
        if packed.endswith("gz"):  # gzip writes down the time
            content = (tmp_path / place / packed).read_bytes()
            (tmp_path / place / packed).write_bytes(gzip.compress(gzip.decompress(content), mtime=0))
        return state_of_members([tmp_path / place], is_jpeg)

    first = made("first", FILES)
    assert made("moved", FILES) == first
    assert made("renamed", {f"x{name}": content for name, content in FILES.items()}) != first
    assert made("changed", FILES | {"0.jpg": FILES["b/1.jpg"]}) != first
    assert made("fewer", dict(list(FILES.items())[1:])) != first
    if packed in ("folder", "images.zip"):
        assert made("with others", FILES | {"read.me": b"not wanted"}) == first


def test_a_touched_file_changes_the_state_of_its_folder(tmp_path):
    write_folder(tmp_path, FILES)
    before = state_of_members([tmp_path], is_jpeg)
    os.utime(tmp_path / "0.jpg", (0, 0))
    assert state_of_members([tmp_path], is_jpeg) != before
