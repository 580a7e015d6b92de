"""What makes a build fail, and what it says of it."""

import hashlib

from tests.test_book import PROFILE, pages_of


def test_a_fact_that_nobody_counted_fails_the_book(bare_book):
    page = bare_book.root / "book" / "index.md"
    page.write_text(page.read_text() + "\n{fact}`moths notes.eyes`\n")
    done = bare_book.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert "there is no fact 'moths notes.eyes'" in done.stderr


def test_a_damaged_network_is_named_and_trained_again(clone):
    values = dict.fromkeys(("train_images", "test_images", "moth_train_images"), 60)
    values |= {"seeds": [0], "moth_seeds": [0], "epochs": 1, "arch": "resnet18-16"}
    small = [f"--parameter={name}={value}" for name, value in values.items()]
    options = ["--arch=resnet18-16", "--train-images=60", "--test-images=60", "--epochs=1", "--seeds=0"]
    assert clone.fairq("sweep", *options, "--bits=4").returncode == 0
    (network,) = clone.store.glob("networks/moths-resnet18-*.safetensors")
    whole = network.read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    network.write_bytes(whole[:-1000])
    done = clone.fairq("run", "01", *small, "-p", "bit_widths=[5]")
    assert done.returncode == 0, done.stderr
    assert f"{network.name} was damaged: it is set aside" in done.stderr
    assert hashlib.sha256(network.read_bytes()).hexdigest() == digest


def test_a_failing_chapter_fails_the_book(short_book):
    source = short_book.root / "notebooks" / "01_disparity_baseline.py"
    source.write_text(source.read_text().replace("trained = settings", "1 / 0\ntrained = settings"))
    done = short_book.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert not pages_of(short_book).exists()


def test_a_warning_of_sphinx_fails_the_book(bare_book):
    index = bare_book.root / "book" / "index.md"
    index.write_text(index.read_text() + "\n{cite}`nobody1900`\n")
    done = bare_book.fairq("book", "--profile", PROFILE)
    assert done.returncode == 1
    assert "nobody1900" in done.stderr
