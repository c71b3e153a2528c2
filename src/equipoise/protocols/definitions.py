"""The protocols: what each asks, and the claims it tests. Arms, data and training stand in its recipe."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """What is claimed of one arm against another on a task: that it does better, or that both do alike."""

    id: str
    text: str
    arm: str
    other: str
    task: str
    alike: bool = False


@dataclass(frozen=True)
class Protocol:
    """A question about token-weighted training, and the claims whose tests answer it.

    Attributes:
        recipe: the built-in recipe that sets it up on the testbed.
        published: the section of `published.json` with what the R-EAFT report gives for it, if it does.
    """

    title: str
    question: str
    recipe: str
    claims: tuple[Claim, ...]
    published: str | None = None


PROTOCOLS = {
    "a": Protocol(
        title="Protocol A: correction",
        question="Does R-EAFT correct confident errors as SFT does, and keep what it should not touch?",
        recipe="protocol-a",
        published="protocol_a",
        claims=(
            Claim("H1", "r-eaft corrects more than sft", "r-eaft", "sft", "correction"),
            Claim("H2", "r-eaft retains as much as sft", "r-eaft", "sft", "retention", alike=True),
            Claim("H3", "r-eaft corrects more than eaft", "r-eaft", "eaft", "correction"),
        ),
    ),
    "b": Protocol(
        title="Protocol B: the natural filter",
        question="In a mixed stream of news and known facts, does the weighting find the news by itself?",
        recipe="protocol-b",
        published="protocol_b",
        claims=(
            Claim("B1", "r-eaft learns the news as well as sft", "r-eaft", "sft", "correction", alike=True),
            Claim("B2", "r-eaft learns the news better than eaft", "r-eaft", "eaft", "correction"),
            Claim("B3", "r-eaft keeps the archive as well as sft", "r-eaft", "sft", "locality", alike=True),
            Claim("B4", "r-eaft keeps unrelated skills better than sft", "r-eaft", "sft", "retention"),
        ),
    ),
    "s": Protocol(
        title="Protocol S: the threshold",
        question="Which shock threshold corrects most, and can one that moves replace one that is set?",
        recipe="protocol-s",
        published="protocol_s",
        claims=(
            Claim("S1", "a static threshold of 5 corrects more than a soft one", "tau-5", "soft", "correction"),
            Claim("S2", "a static threshold of 5 corrects more than a hard one", "tau-5", "hard", "correction"),
            Claim("S3", "a static threshold of 5 corrects more than one of 500", "tau-5", "supershock", "correction"),
            Claim("S4", "sft corrects more than a static threshold of 5", "sft", "tau-5", "correction"),
            Claim("S5", "a static threshold of 5 keeps related facts better than sft", "tau-5", "sft", "locality"),
        ),
    ),
    "t": Protocol(
        title="Protocol T: amplification",
        question="Does a stronger push on confident errors correct more of them?",
        recipe="protocol-t",
        published="protocol_t",
        claims=(
            Claim("T1", "nuclear corrects more than tau 5", "nuclear", "tau-5", "correction"),
            Claim("T2", "extreme corrects more than tau 5", "extreme", "tau-5", "correction"),
            Claim("T3", "siege corrects more than tau 5", "siege", "tau-5", "correction"),
            Claim("T4", "brute force corrects more than tau 5", "brute-force", "tau-5", "correction"),
            Claim("T5", "sft corrects more than brute force", "sft", "brute-force", "correction"),
        ),
    ),
}  # fmt: skip
