"""Publishing a dataset on the Hugging Face hub: one commit, one tag, never another content.

Files are uploaded one by one before the commit that makes them visible together. The hub keeps what
was uploaded, so a second run after an interruption sends only what is missing.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.core.scratch import scratch
from spurbench.dataset.changelog import version_key
from spurbench.dataset.manifest import MANIFEST, Manifest
from spurbench.dataset.verify import require_sound

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

log = logging.getLogger(__name__)

OWN_FILES = frozenset({".gitattributes"})
"""What the hub itself puts into a repository."""


@dataclass(frozen=True)
class Publication:
    """What publishing a version does, in order; nothing where it is published already.

    Attributes:
        repo_id: owner/name.
        tag: vX.Y.Z.
        create: whether the repository is to be publication.
        private: whether it is made private.
        upload: path to bytes of the files that the repository's main branch does not have.
        keep: how many files it has already.
        delete: files of another version that it has.
        parent: the commit that the new one follows; None in a repository yet to be publication.
        published: the tag is there, with this content.
    """

    repo_id: str
    tag: str
    create: bool
    private: bool
    upload: Mapping[str, int]
    keep: int
    delete: tuple[str, ...]
    parent: str | None
    published: bool

    def lines(self) -> list[str]:
        """The operations, for people."""
        if self.published:
            return [f"{self.repo_id} {self.tag} is published, with this content; nothing to do"]
        visibility = "private" if self.private else "public"
        create = [f"create {visibility} dataset repository {self.repo_id}"] if self.create else []
        kept = [f"keep {self.keep} files that are there"] if self.keep else []
        change = self.upload or self.delete
        return [
            *create,
            *kept,
            *(f"upload {path} ({size:,} bytes)" for path, size in self.upload.items()),
            *(f"delete {path}" for path in self.delete),
            *([f"commit {len(self.upload)} files to main"] if change else []),
            f"tag {self.tag}",
        ]


def push(
    folder: Path, repo_id: str, *, private: bool = False, dry_run: bool = False
) -> Publication:
    """Publish a dataset as ``owner/name`` at the tag ``vX.Y.Z``.

    The hub and the token are those of ``huggingface_hub``: ``HF_ENDPOINT``, ``HF_TOKEN`` or the
    saved login.

    Args:
        folder: a dataset that :mod:`spurbench.dataset.verify` passes.
        repo_id: owner/name.
        private: keep it from the public; a public repository that is there is refused.
        dry_run: change nothing.

    Returns:
        What was done, or with ``dry_run`` what would be.

    Raises:
        SpurbenchError: if the dataset is not sound, the hub can't be reached or refuses, the
            version is published with other content, or the repository holds something else or
            is public against ``private``.
    """
    import huggingface_hub

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise SpurbenchError(f"--repo-id {repo_id!r} is not owner/name")
    require_sound(folder)
    api = huggingface_hub.HfApi(library_name="spurbench")
    if problem := hub.unreachable(api.endpoint):
        raise SpurbenchError(f"{problem}; nothing was changed")
    if huggingface_hub.get_token() is None and not dry_run:
        raise SpurbenchError("no token for the hub; set HF_TOKEN or run `hf auth login`")
    with _hub_errors("nothing was changed"):
        publication = prepare(api, folder, repo_id, private=private)
    if not (publication.published or dry_run):
        with _hub_errors("the same command goes on; what was uploaded is kept"):
            _carry_out(api, folder, publication)
    return publication


def prepare(api: HfApi, folder: Path, repo_id: str, *, private: bool) -> Publication:
    """Compare a dataset with what the hub has.

    Raises:
        SpurbenchError: if the version is published with other content, or the repository holds a
            later version or something else, or is public against ``private``.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    manifest = Manifest.read(folder)
    tag = f"v{manifest.version}"
    local = [*manifest.files, MANIFEST]
    try:
        refs = api.list_repo_refs(repo_id, repo_type="dataset")
    except RepositoryNotFoundError:
        sizes = {path: (folder / path).stat().st_size for path in local}
        return Publication(repo_id, tag, True, private, sizes, 0, (), None, published=False)
    if any(ref.name == tag for ref in refs.tags):
        differing = _differing(api, folder, repo_id, tag, manifest)
        if differing:
            raise SpurbenchError(
                f"{repo_id} {tag} is published with other content ({', '.join(differing[:4])}"
                f"{', ...' if len(differing) > 4 else ''}); a published version never changes, "
                "build with a higher --version"
            )
        return Publication(repo_id, tag, False, private, {}, len(local), (), None, published=True)
    if private and not api.repo_info(repo_id, repo_type="dataset").private:
        raise SpurbenchError(
            f"{repo_id} is there and is public; make it private, or leave --private out"
        )
    there = _tree(api, repo_id, "main")
    if there:
        _require_predecessor(_remote_manifest(api, repo_id, "main", there), repo_id, manifest)
    missing = [p for p in local if p not in there or not _same(folder / p, there[p])]
    return Publication(
        repo_id=repo_id,
        tag=tag,
        create=False,
        private=private,
        upload={path: (folder / path).stat().st_size for path in missing},
        keep=len(local) - len(missing),
        delete=tuple(sorted(there.keys() - {*local})),
        parent=next((ref.target_commit for ref in refs.branches if ref.name == "main"), None),
        published=False,
    )


def _carry_out(api: HfApi, folder: Path, publication: Publication) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo_id, parent = publication.repo_id, publication.parent
    if publication.create:
        api.create_repo(repo_id, repo_type="dataset", private=publication.private)
        log.info("created %s", repo_id)
    revision = parent
    if publication.upload or publication.delete:
        additions = [CommitOperationAdd(path, folder / path) for path in publication.upload]
        for addition in additions:
            # One by one, so that each that arrives is safe whatever becomes of the next.
            api.preupload_lfs_files(repo_id, [addition], repo_type="dataset", free_memory=False)
            log.info("uploaded %s", addition.path_in_repo)
        revision = api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(path) for path in publication.delete)],
            commit_message=f"Publish {publication.tag}",
            repo_type="dataset",
            parent_commit=parent,  # refuses if someone else has committed meanwhile
        ).oid
    api.create_tag(repo_id, tag=publication.tag, revision=revision, repo_type="dataset")
    log.info("tagged %s", publication.tag)


def _tree(api: HfApi, repo_id: str, revision: str) -> dict[str, RepoFile]:
    """Every file at a revision but those that the hub put there, by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo_id, revision=revision, repo_type="dataset", recursive=True)
    return {f.path: f for f in tree if isinstance(f, RepoFile) and f.path not in OWN_FILES}


def _same(path: Path, remote: RepoFile) -> bool:
    """Whether a file has the remote one's bytes, by the hash that the hub has of it."""
    if path.stat().st_size != remote.size:
        return False
    if remote.lfs is not None:
        return file_sha256(path) == remote.lfs.sha256
    data = path.read_bytes()  # small: large files are in LFS
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == remote.blob_id


def _differing(api: HfApi, folder: Path, repo_id: str, tag: str, manifest: Manifest) -> list[str]:
    """Files in which a published version differs from the folder.

    The same dataset built twice differs in when it was made, and so in its manifest alone; that
    is the same content.
    """
    there = _tree(api, repo_id, tag)
    differing = [
        path
        for path in sorted({*there, *manifest.files} - {MANIFEST})
        if path not in there or path not in manifest.files or not _same(folder / path, there[path])
    ]
    remote = _remote_manifest(api, repo_id, tag, there)
    if remote is None or _timeless(remote) != _timeless(manifest):
        differing.append(MANIFEST)
    return differing


def _timeless(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"created": "", "manifest_sha256": None})


def _remote_manifest(
    api: HfApi, repo_id: str, revision: str, there: Mapping[str, RepoFile]
) -> Manifest | None:
    """A revision's manifest; None without one that can be read."""
    if MANIFEST not in there:
        return None
    with scratch() as cache:
        path = api.hf_hub_download(
            repo_id, MANIFEST, revision=revision, repo_type="dataset", cache_dir=cache
        )
        try:
            return Manifest.read(Path(path).parent)
        except SpurbenchError:
            return None


def _require_predecessor(held: Manifest | None, repo_id: str, manifest: Manifest) -> None:
    """Refuse to replace what is no earlier version of the dataset."""
    if held is None or held.name != manifest.name:
        holds = held.name if held else "something that is no dataset of spurbench"
        raise SpurbenchError(
            f"{repo_id} holds {holds}, not {manifest.name}; choose another --repo-id"
        )
    if version_key(held.version) > version_key(manifest.version):
        raise SpurbenchError(
            f"{repo_id} holds {held.name} {held.version}, later than {manifest.version}; its main "
            "branch never goes back"
        )


@contextmanager
def _hub_errors(state: str) -> Iterator[None]:
    """Whatever the hub's client raises, in one line that says what ``state`` things are in."""
    try:
        yield
    except SpurbenchError:
        raise
    except Exception as error:  # hub, HTTP, LFS and xet errors have no common ancestor
        root = error.__cause__ if isinstance(error.__cause__, Exception) else error
        reason = " ".join(str(root).split())[:200] or type(root).__name__
        raise SpurbenchError(f"the hub: {reason}; {state}") from error
