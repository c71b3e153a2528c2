"""Labels of published data sets, by the name of an adapter, in words that a model reads."""

from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.config import nearest
from equipoise.errors import UserError

_CONLL = {"PER": "person", "LOC": "location", "ORG": "organization", "MISC": "miscellaneous"}

_WNUT = {
    **{name: name for name in ("person", "location", "corporation", "group", "product")},
    "creative-work": "creative work",
}

_CROSSNER = {
    **{
        name: name
        for name in (
            *("person", "location", "country", "event", "award", "university", "politician", "election"),
            *("scientist", "discipline", "enzyme", "protein", "theory", "song", "band", "album", "book", "writer"),
            *("poem", "magazine", "field", "task", "product", "algorithm", "researcher", "conference"),
        )
    },
    "organisation": "organization",
    "misc": "miscellaneous",
    "politicalparty": "political party",
    "chemicalelement": "chemical element",
    "chemicalcompound": "chemical compound",
    "astronomicalobject": "astronomical object",
    "academicjournal": "academic journal",
    "musicgenre": "music genre",
    "musicalartist": "musical artist",
    "musicalinstrument": "musical instrument",
    "literarygenre": "literary genre",
    "programlang": "programming language",
    "metrics": "metric",
}

_FEW_NERD = {  # what the second part of a label says, where it is not "other"
    "art": {
        "broadcastprogram": "broadcast program",
        "film": "film",
        "music": "music",
        "painting": "painting",
        "writtenart": "written art",
    },
    "building": {
        **{name: name for name in ("airport", "hospital", "hotel", "library", "restaurant", "theater")},
        "sportsfacility": "sports facility",
    },
    "event": {
        "attack/battle/war/militaryconflict": "military conflict",
        **{name: name for name in ("disaster", "election", "protest")},
        "sportsevent": "sports event",
    },
    "location": {
        "GPE": "geopolitical entity",
        "bodiesofwater": "body of water",
        **{name: name for name in ("island", "mountain", "park")},
        "road/railway/highway/transit": "road or railway",
    },
    "organization": {
        **{name: name for name in ("company", "religion")},
        "education": "school or university",
        "government/governmentagency": "government agency",
        "media/newspaper": "media or newspaper",
        "politicalparty": "political party",
        "showorganization": "show organization",
        "sportsleague": "sports league",
        "sportsteam": "sports team",
    },
    "other": {
        **{name: name for name in ("award", "currency", "disease", "god", "language", "law")},
        "astronomything": "astronomical object",
        "biologything": "biological term",
        "chemicalthing": "chemical",
        "educationaldegree": "educational degree",
        "livingthing": "living thing",
        "medical": "medical term",
    },
    "person": {
        "artist/author": "artist or author",
        **{name: name for name in ("actor", "athlete", "director", "politician", "scholar", "soldier")},
    },
    "product": {name: name for name in ("airplane", "car", "food", "game", "ship", "software", "train", "weapon")},
}


@dataclass(frozen=True)
class Adapter:
    """How a data set names its types, in the order in which they are asked for, and the column of its tags.

    `bare` data sets tag a word with its type alone, without a prefix.
    """

    types: Mapping[str, str]
    column: str = "ner_tags"
    bare: bool = False


def _few_nerd(*, fine: bool) -> dict[str, str]:
    labels = {} if fine else {coarse: coarse for coarse in _FEW_NERD}
    for coarse, parts in _FEW_NERD.items():
        labels |= {f"{coarse}-{part}": said if fine else coarse for part, said in parts.items()}
        if coarse != "other":
            labels[f"{coarse}-other"] = f"other {coarse}" if fine else coarse
    return labels


ADAPTERS = {
    "conll03": Adapter(_CONLL),
    "wikigold": Adapter(_CONLL),
    "wnut17": Adapter(_WNUT),
    "crossner": Adapter(_CROSSNER),
    "few-nerd": Adapter(_few_nerd(fine=False), bare=True),
    "few-nerd-fine": Adapter(_few_nerd(fine=True), column="fine_ner_tags", bare=True),
}


def find(name: str) -> Adapter:
    """The adapter of this name.

    Raises:
        UserError: there is none.
    """
    if name not in ADAPTERS:
        guess = nearest(name, ADAPTERS)
        fix = f"did you mean {guess}?" if guess else f"one of {', '.join(ADAPTERS)}, or null for files of your own"
        raise UserError(
            f"there is no adapter {name!r}", where="adapter", fix=fix, docs="docs/extraction-data.md#adapters"
        )
    return ADAPTERS[name]
