"""Near duplicates against all pairs compared: nothing below the threshold goes, and what is above it is found."""

import random
import zlib

import pytest

from equipoise.data.near_duplicates import Banding, NearDuplicates, banding, jaccard, shingles

WORDS = [f"w{i}" for i in range(400)]


def words(rng: random.Random, count: int) -> list[str]:
    return rng.choices(WORDS, k=count)


def index(folder, texts, threshold=0.8, size=3, name="x"):
    near = NearDuplicates(folder, name, threshold, size)
    for text in texts:
        near.add(text)
    return near


def greedy(texts, threshold, size=3):
    """The definition: compare with every earlier text that stays."""
    sets, found = [shingles(text, size) for text in texts], {}
    for later in range(len(texts)):
        for earlier in range(later):
            if earlier not in found and jaccard(sets[earlier], sets[later]) >= threshold:
                found[later] = earlier
                break
    return found


def test_shingles_by_hand():
    assert shingles("The cat sat, again!", 3) == {"the cat sat", "cat sat ,", "sat , again", ", again !"}
    assert shingles("Two words", 3) == {"two words"} and shingles("", 3) == {""}
    assert shingles("日本語だ", 3) == {"日 本 語", "本 語 だ"}
    assert jaccard(shingles("a b c d", 3), shingles("a b c e", 3)) == pytest.approx(1 / 3)


def test_the_cut_is_the_narrowest_that_finds_99_of_100_at_the_threshold():
    assert banding(0.8) == Banding(21, 6)
    assert banding(0.8).recall(0.8) == pytest.approx(1 - (1 - 0.8**6) ** 21) and banding(0.8).recall(0.8) > 0.998
    for threshold in (0.5, 0.6, 0.7, 0.9, 0.95):
        cut = banding(threshold)
        narrower = Banding(128 // (cut.rows + 1), cut.rows + 1)
        assert cut.recall(threshold) >= 0.99 > narrower.recall(threshold)
    assert banding(1.0) == Banding(1, 128)


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_it_agrees_with_all_pairs_compared(tmp_path, threshold):
    rng = random.Random(0)
    texts = [words(rng, rng.randint(10, 60)) for _ in range(300)]
    for number in range(100, 300, 2):  # copies of earlier texts, also of copies, with one to six words changed
        copy = list(texts[rng.randrange(number)])
        for _ in range(rng.randint(1, 6)):
            copy[rng.randrange(len(copy))] = "changed"
        texts[number] = copy
    joined = [" ".join(text) for text in texts]
    found = index(tmp_path, joined, threshold).twins()
    expected = greedy(joined, threshold)
    assert 15 < len(expected) < 120
    for later, twin in found.items():
        assert twin.of not in found
        assert twin.similarity == jaccard(shingles(joined[twin.of], 3), shingles(joined[later], 3)) >= threshold
    assert len(set(expected) ^ set(found)) <= 1  # the recall at the threshold is 99.x%
    assert all(found[later].of == expected[later] for later in set(expected) & set(found))


def test_of_a_thousand_planted_at_the_threshold_the_known_share_is_found(tmp_path):
    rng = random.Random(1)
    texts = []
    for _ in range(1000):
        kept = [f"u{rng.getrandbits(60)}" for _ in range(29)]  # 27 shingles; a change at the end makes 24 of 30 common
        texts += [" ".join(kept), " ".join([*kept[:-3], "x", "y", "z"])]
    assert jaccard(shingles(texts[0], 3), shingles(texts[1], 3)) == 24 / 30
    near = index(tmp_path, texts, 0.8)
    found = near.twins()
    assert len(found) >= 990 and near.cut.recall(0.8) > 0.99
    assert all(later % 2 and twin.of == later - 1 for later, twin in found.items())


def test_no_text_goes_because_of_one_that_goes_itself(tmp_path):
    a = [f"w{i}" for i in range(40)]
    b, c = [*a[4:], *"1234"], [*a[8:], *"12345678"]
    texts = [" ".join(text) for text in (a, b, c)]
    assert set(index(tmp_path, texts, 0.7).twins()) == {1}  # c is near b, but b is not there any more
    assert set(index(tmp_path, texts, 0.7, name="y").twins(skip={0})) == {2}


def test_only_the_first_ones_are_compared_with_the_others_where_asked(tmp_path):
    same = "one two three four five"
    assert index(tmp_path, ["held out", same, same, "held out"]).twins(among=1) == {3: (0, 1.0)}


def test_a_crowded_bucket_is_counted_and_its_copies_still_go(tmp_path):
    near = index(tmp_path, ["one and the same text"] * 300)
    assert set(near.twins()) == set(range(1, 300)) and near.crowded == 21 * (299 - 64)


def test_signatures_do_not_depend_on_the_process(tmp_path):
    index(tmp_path, ["a fixed text of six words"], name="fixed").twins()
    data = (tmp_path / "fixed.signatures").read_bytes()
    assert len(data) == 512 and zlib.crc32(data) == 2110393653
