"""Judge everything that is finished and publish it as a new version if anything is new."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict, cast

from datasets.errors import UserError
from datasets.progress import Progress
from datasets.shards.index import remove_replaced
from datasets.shards.records import LedgerRow
from datasets.sources.items import SourceItem
from datasets.store.protocol import Store
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import GroupEntry
from tasks.ingest.source_state import plain
from tasks.ingest.verdicts import Thresholds, apply_thresholds, in_force
from tasks.publish import pack
from tasks.publish.card import Changes, data_card
from tasks.publish.card_page import card_files
from tasks.publish.duplicates import Standing, find_duplicates, heirs_of, mark
from tasks.publish.ledger import count_reasons, ledger_order, previous_ledger, select_accepted
from tasks.publish.pack import PackConfig
from tasks.publish.receipt import current_index, read_receipt, replaced_versions
from tasks.publish.relabel import RelabelReport, compare_verdicts
from tasks.publish.retention import Retention, files_of


class VersionSummary(TypedDict):
    """Counts of a version, for a flow's result."""

    dataset: str
    digest: str
    inputs: int
    clips_accepted: int
    clips_rejected: int
    reasons: dict[str, int]
    """Reasons of all refused rows, with counts."""
    reasons_without_clip: dict[str, int]
    """Reasons of those refused rows that are not clips, with counts."""
    splits: dict[str, int]
    """Split -> number of clips."""
    loose_files: int
    """Number of files that are not in a folder that names a speaker."""
    speakers: int


@dataclass(frozen=True)
class Published:
    """A version of a dataset."""

    dataset: str
    digest: str
    previous: str
    """Digest of the previous version; equal to `digest` if nothing has changed."""
    inputs: int
    rows: list[LedgerRow]
    splits: Mapping[str, int]
    """Split -> number of clips."""
    loose_files: int
    """Number of files not in a folder that names a speaker: each counts as a speaker."""
    relabelled: RelabelReport | None = None
    """The effect of changed thresholds on the previous version's clips."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """path -> note on a file that was used although something is wrong with it."""
    duplicates: Mapping[str, str] = field(default_factory=dict)
    """path -> path of the file that is published in its place."""

    @property
    def changed(self) -> bool:
        return self.digest != self.previous

    def summary(self) -> VersionSummary:
        """Its counts."""
        good = select_accepted(self.rows)
        without_clip = [row for row in self.rows if not row["clip_id"]]
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            "inputs": self.inputs,
            "clips_accepted": len(good),
            "clips_rejected": len(self.rows) - len(good),
            "reasons": count_reasons(self.rows),
            "reasons_without_clip": count_reasons(without_clip),
            "splits": dict(self.splits),
            "loose_files": self.loose_files,
            "speakers": len({row["speaker"] for row in good}),
        }


def publish(
    store: Store,
    journal: Journal,
    thresholds: Thresholds,
    packing: PackConfig,
    notes: Mapping[str, Any],
    forget: Iterable[str] = (),
    on_progress: Progress | None = None,
    gone: Iterable[str] = (),
    retention: Retention | None = None,
) -> Published:
    """Publish what a journal holds.

    Args:
        store: the dataset's store.
        journal: the journal of its groups.
        thresholds: which clips are good enough.
        packing: how they are split and packed.
        notes: what else the receipt and the data card should say about this version: `changes`
            (kind -> number of files), `first_names` (kind -> some of these), and the `source`.
        forget: keys of sources to drop for good, with their clips.
        on_progress: called with the number of finished and of all groups while shards are written.
        gone: keys of all sources that are no longer listed. Where a listed one has the same
            content, it takes their place; otherwise they stay.
        retention: which replaced versions keep their files; None: as by default.

    Raises:
        UserError: two sources give clips of the same name, clips of two splits have the same
            content, or nothing would be left of a version that has clips; then nothing is
            published.
    """
    gone, groups = {*gone, *forget}, list(journal.entries())
    heirs = heirs_of(groups, gone)
    forgotten = {*forget, *heirs}
    successions = _successions(groups, heirs)
    for group in groups:
        group.sources = [each for each in group.sources if each.key not in forgotten]
    _refuse_twins(groups)
    sources = [source for group in groups for source in group.sources]
    judged = {source.key: apply_thresholds(source.rows, thresholds) for source in sources}
    standing = Standing(
        {
            key: sum(row["num_frames"] for row in select_accepted(found))
            for key, found in judged.items()
        },
        gone,
        {row["path"] for row in select_accepted(previous_ledger(store, ("path", "verdict")))},
    )
    duplicates = find_duplicates(groups, standing, packing.duplicates)
    for source in sources:
        if twin := duplicates.get(source.key):
            judged[source.key] = mark(judged[source.key], twin)
            if source.rows[0]["path"] in standing.published:
                successions.add((twin.first.rows[0]["speaker"], source.rows[0]["speaker"]))
    rows = [
        _add_note(row, source.note, source.heard)
        for source in sources
        for row in judged[source.key]
    ]
    rows += apply_thresholds(journal.set_aside(forgotten), thresholds)
    rows.sort(key=ledger_order)
    index = current_index(store)
    _refuse_empty(index, rows, store)
    journal.succeed(heirs)
    journal.forget(forgotten)
    loose = _loose_files(rows, notes.get("source"))
    previous, relabelled = str(index["digest"]) if index else "", None
    digest = pack.find_published(store, pack.fingerprint(groups, rows, packing))
    if digest is not None and index:
        # A killed run may have left the shards that its new index replaced.
        remove_replaced(store, index, files_of(replaced_versions(store)))
    else:
        kept = {"ingest": asdict(journal.config), "thresholds": asdict(thresholds), **notes}
        kept["previous"] = previous
        # What is not given stays unset for the next refresh, which may have another scorer.
        kept["thresholds_in_force"] = in_force(thresholds, journal.config.scorer)
        relabelled = _compare_with_published(store, rows, thresholds, packing)

        def card(index: Mapping[str, Any], splits: Mapping[str, str]) -> Mapping[str, bytes]:
            changes = _changes(kept, bool(forgotten), relabelled)
            about = {"loose_files": loose, "test_fraction": packing.test_fraction}
            return _card(rows, {**index, **about}, splits, kept, changes)

        digest = pack.pack(
            store, journal, groups, rows, packing, kept, card, on_progress, successions, retention
        )
        journal.sweep()
    index = current_index(store)
    splits = dict(index["counts"]) if index else {}
    notes_of = {source.rows[0]["path"]: source.note for source in sources if source.note}
    return Published(
        store.url,
        digest,
        previous,
        len(sources),
        rows,
        splits,
        loose,
        relabelled,
        notes_of,
        {row["path"]: row["duplicate_of"] for row in rows if row.get("duplicate_of")},
    )


def _successions(groups: Sequence[GroupEntry], heirs: Mapping[str, str]) -> set[tuple[str, str]]:
    """Speaker now, and speaker before, of content that is under a new name."""
    speakers = {
        source.key: source.rows[0]["speaker"]
        for group in groups
        for source in group.sources
        if source.rows
    }
    found = {(speakers[now], speakers[before]) for before, now in heirs.items()}
    for group in groups:
        for source in group.sources:
            found |= {(speakers[source.key], speaker) for _, speaker in source.formerly}
    return found


def _loose_files(rows: Sequence[Mapping[str, Any]], source: Any) -> int:
    """Files on the first level of a folder; other sources name speakers in other ways."""
    return len(
        {row["path"] for row in rows if "/" not in row["path"]} if source == "folder" else ()
    )


def _add_note(row: LedgerRow, *notes: str) -> LedgerRow:
    """A judged row whose detail also has the note on its file."""
    return row | {"detail": "; ".join(filter(None, (row["detail"], *notes)))}


def _refuse_twins(groups: Sequence[GroupEntry]) -> None:
    """Refuse two sources whose clips would overwrite each other."""
    owners: dict[str, str] = {}
    for source in (source for group in groups for source in group.sources):
        for clip_id in (row["clip_id"] for row in source.rows if row["clip_id"]):
            owner = owners.setdefault(clip_id, source.key)
            if owner != source.key:
                raise UserError(
                    f"the clip {clip_id} comes from both {owner} and {source.key}: give one of "
                    "them another name, and refresh with --forget-missing"
                )


def _refuse_empty(
    index: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]], store: Store
) -> None:
    """Refuse to replace a version with clips by one without: a threshold was mistyped."""
    clips = sum(index["counts"].values()) if index else 0
    if clips and not select_accepted(rows):
        counts = count_reasons(rows)
        why = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "no file left"
        raise UserError(
            f"no clip would be left ({why}), so {store.url} keeps the version with {clips} clips: "
            "use thresholds that some clips meet, or another output"
        )


def refuse_losses(store: Store, journal: Journal, items: Sequence[SourceItem]) -> None:
    """Check that no clips are dropped just because the next version is made differently.

    Args:
        store: of the dataset.
        journal: the journal of the next version's configuration.
        items: all sources.

    Raises:
        UserError: files whose clips are published are neither listed nor finished by that
            configuration.
    """
    ledger = previous_ledger(store, ("path", "verdict"))
    paths = {row["path"] for row in select_accepted(ledger)}
    lost = paths - {plain(item.relative) for item in items}
    if lost:
        lost -= {
            path
            for group in journal.entries()
            for source in group.sources
            for path in (*(row["path"] for row in source.rows), *dict(source.formerly))
        }
    if lost:
        raise UserError(
            f"{len(lost)} files with clips in {store.url}, such as {min(lost)}, are no longer in "
            "the source, and would be dropped since the clips are made differently from before "
            "(resolution, scorer, quality, or another release) or staging was deleted: use the "
            "same options as before, or --forget-missing"
        )


def _compare_with_published(
    store: Store, rows: list[LedgerRow], thresholds: Thresholds, packing: PackConfig
) -> RelabelReport | None:
    """Changes to the clips of the published version; None if it was decided as this one."""
    receipt = read_receipt(store) or {}
    kind = (receipt.get("packing") or {}).get("duplicates", packing.duplicates)
    same = kind == packing.duplicates and receipt.get("thresholds") == asdict(thresholds)
    if same or receipt.get("thresholds") is None:
        return None
    columns = ("clip_id", "verdict", "reason")
    now = {row["clip_id"]: row for row in rows if row["clip_id"]}
    before = [row for row in previous_ledger(store, columns) if row["clip_id"] in now]
    return compare_verdicts(before, [now[row["clip_id"]] for row in before])


def _card(
    rows: list[LedgerRow],
    index: Mapping[str, Any],
    splits: Mapping[str, str],
    notes: Mapping[str, Any],
    changes: Changes,
) -> Mapping[str, bytes]:
    """The files of the data card."""
    shown = [{**row, "split": splits.get(row["speaker"], "")} for row in rows]
    about = {"thresholds": notes["thresholds_in_force"], "source": notes.get("source", "")}
    return card_files(data_card(shown, {**index, **about}, changes))


def _changes(
    notes: Mapping[str, Any], forgotten: bool, relabelled: RelabelReport | None
) -> Changes:
    """What the data card says about changes since the previous version.

    Args:
        notes: notes of the version.
        forgotten: whether files that are gone from the source were dropped.
        relabelled: the effect of other thresholds.
    """
    kinds = {"new": "new", "changed": "changed", "gone": "forgotten" if forgotten else "gone"}
    counts, names = notes.get("changes", {}), notes.get("first_names", {})
    told = {kind: counts.get(name, 0) for name, kind in kinds.items()}
    changes = cast(Changes, {"previous": notes["previous"], **told})
    changes["names"] = {kind: names.get(name, ()) for name, kind in kinds.items()}
    if relabelled:
        changes["relabelled"] = relabelled.changes()
    return changes
