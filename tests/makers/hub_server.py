"""A stand-in for the Hugging Face hub: its HTTP protocol for datasets (of models: fetching).

It keeps repositories in memory: commits as lists of files, tags, and the large files that were
uploaded. Written after what huggingface_hub 1.33 sends and reads. Large files travel by LFS: the
stand-in has no xet storage (set ``HF_HUB_DISABLE_XET``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_standin"
GITATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"

File = tuple[str, bytes]
"""("regular" or "lfs", content)."""


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("initial commit", {".gitattributes": ("regular", GITATTRIBUTES)})

    def commit(self, message: str, files: dict[str, File]) -> str:
        oid = hashlib.sha1(f"{message}{len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.messages.append(message)
        self.refs["main"] = oid
        return oid

    def at(self, revision: str) -> str | None:
        for named in (self.refs, self.tags):
            if revision in named:
                return named[revision]
        return revision if revision in self.commits else None


@dataclass
class Hub:
    """The server's state, and its faults.

    Attributes:
        uploads: oid of every large file that was sent in full, in order.
        requests: METHOD and path of every request.
        refuse_uploads_after: large files to take before answering 403 to the next.
    """

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    refuse_uploads_after: int | None = None


class _Answer(Exception):  # noqa: N818 - ends a request from anywhere
    def __init__(self, status: int, body: object = None, **headers: str) -> None:
        self.status, self.body, self.headers = status, body, headers


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.state.requests.append(f"{self.command} {url.path}")
        body = self._body()
        try:
            for pattern, methods, answer in ROUTES:
                found = re.fullmatch(pattern, url.path)
                if found and self.command in methods:
                    answer(self, body, parse_qs(url.query), *map(unquote, found.groups()))
            raise _Answer(404, {"error": f"no route {self.command} {url.path}"})
        except _Answer as answer:
            self._send(answer)

    do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: _Answer) -> None:
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", **answer.headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def repository(self, name: str, *, write: bool = False) -> Repository:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        found = self.state.repositories.get(name)
        if found is None or (found.private and not known):
            raise _Answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if write and not known:
            raise _Answer(401, {"error": "Invalid username or password."})
        return found

    def revision(self, name: str, revision: str) -> tuple[Repository, str]:
        repository = self.repository(name)
        oid = repository.at(revision)
        if oid is None:
            raise _Answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        return repository, oid

    # The routes: each ends by raising its answer.

    def home(self, body: bytes, query: dict) -> None:
        raise _Answer(200, b"hub")

    def create(self, body: bytes, query: dict) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Answer(401, {"error": "Invalid username or password."})
        assert asked["type"] == "dataset"
        if name in self.state.repositories:
            raise _Answer(409, {"error": "You already created this dataset repo"})
        private = asked.get("private", False) or asked.get("visibility") == "private"
        self.state.repositories[name] = Repository(private)
        raise _Answer(200, {"url": f"{self.state.endpoint}/datasets/{name}"})

    def validate_yaml(self, body: bytes, query: dict) -> None:
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            raise _Answer(400, {"errors": [{"message": "no YAML"}], "warnings": []})
        raise _Answer(200, {"errors": [], "warnings": []})

    def info(self, body: bytes, query: dict, name: str, revision: str = "main") -> None:
        repository, oid = self.revision(name, revision)
        siblings = [{"rfilename": path} for path in repository.commits[oid]]
        raise _Answer(
            200,
            {"id": name, "sha": oid, "private": repository.private, "siblings": siblings}
            | {"tags": [], "downloads": 0, "likes": 0, "gated": False, "disabled": False},
        )

    def info_at(self, body: bytes, query: dict, name: str, revision: str) -> None:
        self.info(body, query, name, revision)

    def refs(self, body: bytes, query: dict, name: str) -> None:
        repository = self.repository(name)

        def listed(named: dict[str, str], kind: str) -> list[dict]:
            return [
                {"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": oid}
                for ref, oid in named.items()
            ]

        branches, tags = listed(repository.refs, "heads"), listed(repository.tags, "tags")
        raise _Answer(200, {"branches": branches, "converts": [], "tags": tags})

    def tree(self, body: bytes, query: dict, name: str, revision: str, under: str = "") -> None:
        repository, oid = self.revision(name, revision)
        entries = described(repository.commits[oid])
        prefix = f"{under}/" if under else ""
        inside = [e for e in entries if e["path"].startswith(prefix) and e["path"] != under]
        if query.get("recursive", ["False"])[0].lower() != "true":
            inside = [e for e in inside if "/" not in e["path"][len(prefix) :]]
        if under and not inside:
            raise _Answer(404, {"error": "no such folder"}, X_Error_Code="EntryNotFound")
        raise _Answer(200, inside)

    def tree_under(self, body: bytes, query: dict, name: str, revision: str, under: str) -> None:
        self.tree(body, query, name, revision, under)

    def paths_info(self, body: bytes, query: dict, name: str, revision: str) -> None:
        repository, oid = self.revision(name, revision)
        wanted = parse_qs(body.decode()).get("paths", [])
        raise _Answer(200, [e for e in described(repository.commits[oid]) if e["path"] in wanted])

    def preupload(self, body: bytes, query: dict, name: str, revision: str) -> None:
        self.repository(name, write=True)
        repository, oid = self.revision(name, revision)
        there = {entry["path"]: entry for entry in described(repository.commits[oid])}
        files = []
        for asked in json.loads(body)["files"]:
            mode = "lfs" if asked["path"].endswith(".parquet") else "regular"
            entry = there.get(asked["path"])
            known = None if entry is None else entry.get("lfs", entry)["oid"]
            files.append(
                {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": known}
            )
        raise _Answer(200, {"files": files})

    def batch(self, body: bytes, query: dict, name: str) -> None:
        repository = self.repository(name, write=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            if asked["oid"] not in repository.objects:  # otherwise no action: it is there
                href = f"{self.state.endpoint}/lfs/{name}/{asked['oid']}"
                asked["actions"] = {
                    "upload": {"href": href},
                    "verify": {"href": f"{self.state.endpoint}/verify/{name}"},
                }
            objects.append(asked)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def put_object(self, body: bytes, query: dict, name: str, oid: str) -> None:
        repository = self.state.repositories[name]  # the address is signed, there is no token
        limit = self.state.refuse_uploads_after
        if limit is not None and len(self.state.uploads) >= limit:
            raise _Answer(403, {"error": "the signature has expired"})
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Answer(400, {"error": "not the announced content"})
        repository.objects[oid] = body
        self.state.uploads.append(oid)
        raise _Answer(200, {})

    def verify_object(self, body: bytes, query: dict, name: str) -> None:
        asked = json.loads(body)
        held = self.repository(name, write=True).objects.get(asked["oid"])
        whole = held is not None and len(held) == asked["size"]
        raise _Answer(200 if whole else 404, {})

    def commit(self, body: bytes, query: dict, name: str, revision: str) -> None:
        repository = self.repository(name, write=True)
        lines = [json.loads(line) for line in body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", repository.refs["main"]) != repository.refs["main"]:
            raise _Answer(412, {"error": "A commit has happened since. Please refresh."})
        files = dict(repository.commits[repository.refs["main"]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = ("regular", base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if value["oid"] not in repository.objects:
                    raise _Answer(400, {"error": "LFS pointer to a file that does not exist"})
                files[value["path"]] = ("lfs", repository.objects[value["oid"]])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(header["summary"], files)
        url = f"{self.state.endpoint}/datasets/{name}/commit/{oid}"
        raise _Answer(200, {"commitUrl": url, "commitOid": oid})

    def tag(self, body: bytes, query: dict, name: str, revision: str) -> None:
        self.repository(name, write=True)
        repository, oid = self.revision(name, revision)
        wanted = json.loads(body)["tag"]
        if wanted in repository.tags:
            raise _Answer(409, {"error": "Tag reference exists already"})
        repository.tags[wanted] = oid
        raise _Answer(200, {})

    def resolve(self, body: bytes, query: dict, name: str, revision: str, path: str) -> None:
        repository, oid = self.revision(name, revision)
        if path not in repository.commits[oid]:
            raise _Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        kind, data = repository.commits[oid][path]
        etag = hashlib.sha256(data).hexdigest() if kind == "lfs" else git_oid(data)
        headers = {"X_Repo_Commit": oid, "ETag": f'"{etag}"', "Accept_Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            end = int(span[2] or len(data) - 1)
            part = data[int(span[1]) : end + 1]
            headers["Content_Range"] = f"bytes {span[1]}-{end}/{len(data)}"
            raise _Answer(206, part, **headers)
        raise _Answer(200, data, **headers)


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def described(files: dict[str, File]) -> list[dict]:
    """Folders and files as the hub's tree lists them."""
    folders = {path.rpartition("/")[0] for path in files} - {""}
    entries: list[dict] = [
        {"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders
    ]
    for path, (kind, data) in files.items():
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
        if kind == "lfs":
            digest = hashlib.sha256(data).hexdigest()
            entry["oid"] = git_oid(f"pointer to {digest}".encode())
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry["path"])


NAME = r"([\w.-]+/[\w.-]+)"
API = f"/api/datasets/{NAME}"
ROUTES = [
    (r"/?", {"HEAD", "GET"}, _Handler.home),
    (r"/api/repos/create", {"POST"}, _Handler.create),
    (r"/api/validate-yaml", {"POST"}, _Handler.validate_yaml),
    (API, {"GET"}, _Handler.info),
    (f"{API}/revision/([^/]+)", {"GET"}, _Handler.info_at),
    (f"{API}/refs", {"GET"}, _Handler.refs),
    (f"{API}/tree/([^/]+)", {"GET"}, _Handler.tree),
    (f"{API}/tree/([^/]+)/(.+)", {"GET"}, _Handler.tree_under),
    (f"{API}/paths-info/([^/]+)", {"POST"}, _Handler.paths_info),
    (f"{API}/preupload/([^/]+)", {"POST"}, _Handler.preupload),
    (f"{API}/commit/([^/]+)", {"POST"}, _Handler.commit),
    (f"{API}/tag/([^/]+)", {"POST"}, _Handler.tag),
    (rf"/datasets/{NAME}\.git/info/lfs/objects/batch", {"POST"}, _Handler.batch),
    (rf"/lfs/{NAME}/(\w+)", {"PUT"}, _Handler.put_object),
    (rf"/verify/{NAME}", {"POST"}, _Handler.verify_object),
    (f"/datasets/{NAME}/resolve/([^/]+)/(.+)", {"GET", "HEAD"}, _Handler.resolve),
    (f"/{NAME}/resolve/([^/]+)/(.+)", {"GET", "HEAD"}, _Handler.resolve),  # models
]
"""Path, methods, and what answers."""
