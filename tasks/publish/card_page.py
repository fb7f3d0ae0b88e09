"""A data card as files: a web page with plots, and the same in Markdown without them."""

from collections.abc import Sequence

from tasks.pages import html, markdown
from tasks.pages.funnel import Step, funnel
from tasks.publish.card import Change, DataCard, hours
from tasks.publish.card_plots import histogram
from tasks.publish.card_scores import Distribution

FOLDER = "card"
LONGEST_NAME = 32
"""Characters; longer names of speakers are truncated in the plot's labels."""
NOT_TOLD = "–"

Table = tuple[Sequence[str], list[Sequence[str]], Sequence[int]]
"""Head, rows, and the indices of columns that hold numbers."""


def card_files(card: DataCard, folder: str = FOLDER) -> dict[str, bytes]:
    """The card's files: path below the dataset -> content. Equal cards give equal bytes."""
    return {
        f"{folder}/README.md": card_markdown(card).encode(),
        f"{folder}/card.html": card_page(card).encode(),
    }


def card_page(card: DataCard) -> str:
    """The card as a self-contained web page."""
    since, previous = _since(card)
    return html.render(
        "publish/card.html",
        title=f"Data card {card.digest[:12]}",
        card=card,
        lead=_lead(card),
        numbers=_numbers(card),
        disjoint=_disjoint(card),
        splits=_splits(card),
        funnel=[(each.name, each.count, f"{each.count:,}", each.kind) for each in _funnel(card)],
        reasons=_reasons(card),
        since=since,
        previous=previous,
        changes=[
            (change.what, f"{change.count:,}", change.names, _more(change))
            for change in card.changes
        ],
        figures=[(each.title, histogram(each), _caption(each)) for each in card.distributions],
        speakers_note=f"{len(card.top_speakers)} of {card.speakers:,}, those with the most "
        "accepted hours.",
        speakers=_speaker_bars(card),
    )


def card_markdown(card: DataCard) -> str:
    """The card as Markdown; `card.html` has the plots."""
    before, version = _since(card)
    parts = [
        "# Data card",
        f"{_lead(card)} `{card.digest}`\n\nThe same with plots: `card.html`.",
        _markdown("", (("number", "what"), [*_numbers(card)], (0,))),
        _markdown("Splits", _splits(card)),
        _disjoint(card),
        _markdown(
            "From input to clips",
            (("step", "count"), [(step.name, f"{step.count:,}") for step in _funnel(card)], (1,)),
        ),
        _markdown("Reasons", _reasons(card)),
        f"## What changed\n\n{before} `{version}`".removesuffix(" ``"),
        _markdown("", (("change", "count", "files"), [*map(_change_cells, card.changes)], (1,))),
        _markdown("Scores", _score_table(card.distributions)),
        _markdown("Speakers with the most hours", _speakers(card)),
        _markdown("Thresholds", (("threshold", "value"), _pairs(card.thresholds), ())),
        _markdown("Format", (("fact", "value"), _pairs(card.facts), ())),
        _markdown("Sources and licences", (("source", "licence"), [*card.sources], ())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lead(card: DataCard) -> str:
    return (
        f"Clips of talking faces with speech that is in sync, {_length(card.frames_accepted)} in "
        f"all. Version (digest of the index):"
    )


def _numbers(card: DataCard) -> list[tuple[str, str]]:
    share = card.clips_accepted / card.clips_found if card.clips_found else 0.0
    return [
        (_length(card.frames_accepted), "accepted"),
        (f"{card.clips_accepted:,}", "clips"),
        (f"{card.speakers:,}", "speakers"),
        (f"{card.inputs:,}", "input files"),
        (f"{share:.0%}", "of the clips found were accepted"),
    ]


def _disjoint(card: DataCard) -> str:
    said = []
    if card.shared_speakers:
        said.append(
            f"Speakers in more than one split, which must not be: {card.shared_speakers:,}."
        )
    elif card.shared_speakers is not None:
        said.append("No speaker is in two splits.")
    if card.loose_files:
        said.append(
            f"{card.loose_files:,} input files are not in a folder that names a speaker, and each "
            "counts as one: numbers of speakers are only as good as the folders' names."
        )
    if not any(line.name == "test" and line.clips for line in card.splits):
        said += _no_test(card)
    return " ".join(said)


def _no_test(card: DataCard) -> list[str]:
    """Why there is no test split, if that is known."""
    if card.test_fraction is None or not card.clips_accepted:
        return []
    if not card.test_fraction:
        return ["There is no test split, and none was asked for."]
    return [
        f"There is no test split: {card.test_fraction:.0%} of the speakers are wanted for it, but "
        f"only {card.speakers:,} {'has' if card.speakers == 1 else 'have'} clips."
    ]


def _length(frames: int) -> str:
    time = hours(frames)
    return f"{time:,.1f} h" if time >= 1 else f"{60 * time:.1f} min"


def _hours(frames: int) -> str:
    return f"{hours(frames):,.3f}"


def _splits(card: DataCard) -> Table:
    rows: list[Sequence[str]] = [
        (
            line.name,
            f"{line.clips:,}",
            NOT_TOLD if line.frames is None else _hours(line.frames),
            NOT_TOLD if line.speakers is None else f"{line.speakers:,}",
            f"{line.shards:,}",
            f"{line.bytes / 1e6:,.1f} MB",
        )
        for line in card.splits
    ]
    return ("split", "clips", "hours", "speakers", "shards", "size"), rows, range(1, 6)


def _funnel(card: DataCard) -> list[Step]:
    reasons: dict[str, int] = {}
    for line in card.reasons:
        reasons[line.reason] = reasons.get(line.reason, 0) + line.rows
    came = [("input files", card.inputs), ("clips found", card.clips_found)]
    return funnel(came, card.clips_accepted, reasons)


def _reasons(card: DataCard) -> Table:
    rows: list[Sequence[str]] = [
        (line.stage or NOT_TOLD, line.reason, f"{line.rows:,}", _hours(line.frames))
        for line in sorted(card.reasons, key=lambda line: (line.stage, -line.rows, line.reason))
    ]
    return ("decided at", "reason", "rows", "hours"), rows, (2, 3)


def _since(card: DataCard) -> tuple[str, str]:
    """The text before the list of changes, and the version they are since."""
    if not card.previous:
        return "This is the first version.", ""
    return ("Since version" if card.changes else "Nothing since version"), card.previous


def _more(change: Change) -> str:
    rest = change.count - len(change.names)
    return f" and {rest:,} more" if rest else ""


def _change_cells(change: Change) -> Sequence[str]:
    names = ", ".join(change.names) + _more(change) if change.names else ""
    return change.what, f"{change.count:,}", names


def _caption(each: Distribution) -> str:
    parts = []
    if each.quantiles_accepted:
        low, middle, high = each.quantiles_accepted
        parts.append(f"Accepted: median {middle:.3g}, 5 to 95 % from {low:.3g} to {high:.3g}.")
    if each.outside:
        parts.append(f"{each.outside:,} beyond the ends are in the outermost bars.")
    if each.unmeasured:
        parts.append(f"{each.unmeasured:,} clips have no value.")
    return " ".join(parts)


def _score_table(found: Sequence[Distribution]) -> Table:
    rows: list[Sequence[str]] = []
    for each in found:
        for name, spread in (
            ("accepted", each.quantiles_accepted),
            ("refused", each.quantiles_refused),
        ):
            if spread is not None:
                count = sum(each.accepted if name == "accepted" else each.refused)
                numbers = [f"{value:.4g}" for value in spread]
                rows.append((each.title, each.unit, name, f"{count:,}", *numbers))
    head = ("score", "unit", "clips", "number", "5 %", "median", "95 %")
    return head, rows, range(3, 7)


def _speaker_bars(card: DataCard) -> list[tuple[str, float, str, str]]:
    return [
        (
            _short(line.speaker),
            float(line.frames),
            f"{_length(line.frames)}, {line.clips:,} clips",
            "",
        )
        for line in card.top_speakers
    ]


def _speakers(card: DataCard) -> Table:
    rows: list[Sequence[str]] = [
        (line.speaker, f"{line.clips:,}", _hours(line.frames)) for line in card.top_speakers
    ]
    return ("speaker", "clips", "hours"), rows, (1, 2)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _pairs(values: dict[str, str]) -> list[Sequence[str]]:
    return [*values.items()]


def _markdown(title: str, content: Table) -> str:
    text = markdown.table(*content)
    return f"## {title}\n\n{text}" if title and text else text
