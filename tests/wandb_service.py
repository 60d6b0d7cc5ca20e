"""A stand-in for the W&B service on the loopback, for W&B's own client: it keeps what it is sent as the real one does.

A line of a run's history has an offset, and a line sent again for that offset takes its place. A run has a state to resume from.
An artifact is committed or not, versions with the same content are one version, and a commit wants all files of the manifest.
GraphQL is answered by the operation's name; what is not known is null, with which the client is content.
"""

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote, unquote

from tests.file_server import run_server

ENTITY, KEY = "somebody", "0123456789" * 4


@dataclass
class Run:
    """A run as the service has it."""

    id: str
    about: dict[str, Any] = field(default_factory=dict)  # groupName, displayName, jobType, tags, notes, config ...
    lines: dict[str, dict[int, str]] = field(default_factory=dict)  # of history, events and output, by file and offset
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    used: list["Artifact"] = field(default_factory=list)
    made: list["Artifact"] = field(default_factory=list)
    alerts: list[dict[str, str]] = field(default_factory=list)
    ended: bool = False
    exit_code: int | None = None

    @property
    def name(self) -> str:
        return self.about["displayName"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines in the order of their offsets."""
        return [json.loads(line) for _, line in sorted(self.lines.get("wandb-history.jsonl", {}).items())]

    @property
    def config(self) -> dict[str, Any]:
        stored = json.loads(self.about.get("config") or "{}")
        return {key: entry["value"] for key, entry in stored.items() if key != "_wandb"}

    def count(self, name: str) -> int:
        return max(self.lines.get(name, {}), default=-1) + 1

    def tail(self, name: str) -> str:
        last = sorted(self.lines.get(name, {}).items())[-1:]
        return json.dumps([line for _, line in last])


@dataclass
class Artifact:
    """A version of an artifact."""

    id: str
    about: dict[str, Any]
    version: int
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    committed: bool = False

    @property
    def name(self) -> str:
        return self.about["artifactCollectionName"]

    @property
    def type(self) -> str:
        return self.about["artifactTypeName"]

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads(self.about.get("metadata") or "{}")


@dataclass
class Trouble:
    """How requests whose path or operation matches `where` go wrong, so many times; then the service is well again."""

    # "hang", "drop", "drop answer" (kept, but the answer is lost), "revoke" (the keys, for good), or a status such as "500"
    kind: str
    where: str = ""
    times: int = 10**9


@dataclass
class Service:
    """What the service has, and how it misbehaves."""

    url: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=lambda: {KEY})
    troubles: list[Trouble] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a client talks to this service."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def run(self, name: str) -> Run:
        """The only run with that name."""
        (found,) = [run for run in self.runs.values() if run.name == name]
        return found

    def artifact(self, name: str, alias: str = "latest") -> Artifact:
        (found,) = [one for one in self.artifacts if one.name == name and (alias in one.aliases or alias == f"v{one.version}")]
        return found

    def take_trouble(self, what: str) -> str | None:
        """The trouble of a request, which is counted."""
        with self.lock:
            self.requests.append(what)
            trouble = next((one for one in self.troubles if one.times and re.search(one.where, what)), None)
            if trouble is None:
                return None
            trouble.times -= 1
            return trouble.kind

    # GraphQL, by the names of the operations.

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        given = {**given, **(given.get("input") or {})}
        handler = getattr(self, f"on_{operation}", None)
        with self.lock:
            return handler(given) if handler else {}

    def on_Viewer(self, given: dict) -> dict:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {
                "id": "VXNlcjox",
                "entity": ENTITY,
                "username": ENTITY,
                "name": ENTITY,
                "email": "",
                "flags": "{}",
                "admin": False,
                "deletedAt": None,
                "teams": teams,
                "apiKeys": {"edges": []},
                "accounts": [],
            }
        }

    on_GetViewer = on_GetDefaultEntity = on_Viewer

    def on_RunResumeStatus(self, given: dict) -> dict:
        run = self.runs.get(given["name"])
        bucket = run and {
            "id": run.id,
            "name": run.id,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.about.get("displayName"),
            "logLineCount": run.count("output.log"),
            "historyLineCount": run.count("wandb-history.jsonl"),
            "eventsLineCount": run.count("wandb-events.jsonl"),
            "historyTail": run.tail("wandb-history.jsonl"),
            "eventsTail": run.tail("wandb-events.jsonl"),
            "config": run.about.get("config") or "{}",
            "tags": run.about.get("tags") or [],
            "notes": run.about.get("notes"),
            "wandbConfig": json.dumps({"t": 1}),
        }
        entity = {"id": "e", "name": ENTITY}
        return {"model": {"id": "p", "name": given["project"], "entity": entity, "bucket": bucket}}

    def on_UpsertBucket(self, given: dict) -> dict:
        name = given.get("name") or given["id"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.about |= {key: value for key, value in given.items() if value is not None}
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        project = {"id": "p", "name": run.about["project"], "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.about.get("displayName"),
            "description": None,
            "config": run.about.get("config") or "{}",
            "sweepName": None,
            "project": project,
            "historyLineCount": run.count("wandb-history.jsonl"),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_Run(self, given: dict) -> dict:
        run = self.runs.get(given["name"])
        state = "running" if run is None or not run.ended else "failed" if run.exit_code else "finished"
        found = run and {
            "projectId": 1,
            "id": run.id,
            "name": run.id,
            "displayName": run.name,
            "state": state,
            "config": run.about.get("config") or "{}",
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "tags": run.about.get("tags") or [],
            "historyLineCount": run.count("wandb-history.jsonl"),
        }
        return {"project": {"run": found}}

    def on_RunHistoryKeys(self, given: dict) -> dict:
        run = self.runs.get(given["name"])
        keys = run and {"lastStep": max((line["_step"] for line in run.history), default=-1)}
        return {"project": {"run": run and {"historyKeys": keys}}}

    def on_RunFiles(self, given: dict) -> dict:
        files = self.runs[given["name"]].files
        edges = [
            {"node": {"id": name, "name": name, "sizeBytes": len(content)}, "cursor": name} for name, content in files.items()
        ]
        page = {"endCursor": None, "hasNextPage": False}
        return {"project": {"run": {"fileCount": len(files), "files": {"edges": edges, "pageInfo": page}}}}

    def on_CreateRunFiles(self, given: dict) -> dict:
        files = [{"name": name, "uploadUrl": self.address("run", given["run"], name)} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def on_NotifyScriptableRunAlert(self, given: dict) -> dict:
        self.runs[given["runName"]].alerts.append({key: given[key] for key in ("title", "text", "severity")})
        return {"notifyScriptableRunAlert": {"success": True}}

    def on_UpsertView2(self, given: dict) -> dict:
        self.views.append(given)
        view = {"id": f"view{len(self.views)}", **{key: given.get(key) for key in ("name", "displayName", "type", "spec")}}
        return {"upsertView": {"view": view, "inserted": True}}

    def on_CreateArtifact(self, given: dict) -> dict:
        name = given["artifactCollectionName"]
        versions = [one for one in self.artifacts if one.name == name]
        found = next((one for one in versions if one.committed and one.about["digest"] == given["digest"]), None)
        artifact = found or Artifact(f"artifact{len(self.artifacts)}", given, sum(one.committed for one in versions))
        if found is None:
            self.artifacts.append(artifact)
        else:
            self.give_aliases(found, given)
        # None made it where it is only used.
        run = self.runs.get(given["runName"])
        if run and artifact not in run.made:
            run.made.append(artifact)
        sequence = {"latestArtifact": {"id": versions[-1].id} if versions else None}
        state = "COMMITTED" if artifact.committed else "PENDING"
        return {"createArtifact": {"artifact": {"id": artifact.id, "state": state, "artifactSequence": sequence}}}

    def on_CreateArtifactManifest(self, given: dict) -> dict:
        key = given.get("artifactID") or given["artifactManifestID"]
        file = {"id": f"file-{key}", "uploadUrl": self.address("manifest", key), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": key, "file": file}}}

    def on_UpdateArtifactManifest(self, given: dict) -> dict:
        return {"updateArtifactManifest": self.on_CreateArtifactManifest(given)["createArtifactManifest"]}

    def on_CreateArtifactFiles(self, given: dict) -> dict:
        nodes = [
            {
                "storagePath": f"{one['artifactID']}/{one['name']}",
                "uploadUrl": self.address("artifact", one["artifactID"], one["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
            }
            for one in given["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, given: dict) -> dict:
        artifact = self.artifact_of(given["artifactID"])
        for name, entry in artifact.manifest["contents"].items():
            md5 = base64.b64encode(hashlib.md5(artifact.files.get(name, b"")).digest()).decode()
            if name not in artifact.files or md5 != entry["digest"]:
                raise ValueError(f"{name} was not uploaded, or is not what the manifest says")
        artifact.committed = True
        self.give_aliases(artifact, artifact.about)
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.about["digest"]}}}

    def on_UseArtifact(self, given: dict) -> dict:
        run, artifact = self.runs[given["runName"]], self.artifact_of(given["artifactID"])
        if artifact not in run.used:
            run.used.append(artifact)
        return {"useArtifact": {"artifact": {"id": artifact.id}}}

    def on_ArtifactByID(self, given: dict) -> dict:
        return {"artifact": describe(self.artifact_of(given["id"]))}

    def on_ArtifactMembershipByName(self, given: dict) -> dict:
        name, _, alias = given["name"].partition(":")
        found = self.find_version(name, alias)
        membership = found and {
            "__typename": "ArtifactCollectionMembership",
            "id": found.id,
            "versionIndex": found.version,
            "createdAt": "2026-01-01T00:00:00Z",
            "aliases": describe(found)["aliases"],
            "artifactCollection": describe_collection(found),
            "artifact": describe(found),
        }
        return {"project": {"artifactCollectionMembership": membership}}

    def on_ArtifactType(self, given: dict) -> dict:
        name, _, alias = given["name"].partition(":")
        found = self.find_version(name, alias or "latest")
        return {"project": {"artifact": found and {"artifactType": {"name": found.type}}}}

    def on_ProjectArtifacts(self, given: dict) -> dict:
        """The versions of an artifact that are committed, which is what the client asks for."""
        versions = [one for one in self.artifacts if (one.type, one.name) == (given["type"], given["collection"])]
        edges = [{"version": f"v{one.version}", "node": describe(one)} for one in versions if one.committed]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        found = {"__typename": "ArtifactSequence", "artifacts": {"totalCount": len(edges), "pageInfo": page, "edges": edges}}
        return {"project": {"artifactType": {"artifactCollection": found if versions else None}}}

    def on_FetchArtifactManifest(self, given: dict) -> dict:
        return {"artifact": {"currentManifest": {"file": {"directUrl": self.address("manifest", given["id"])}}}}

    on_ArtifactManifest = on_FetchArtifactManifest

    def on_GetArtifactMembershipFileUrls(self, given: dict) -> dict:
        found = self.find_version(given["collection"], given["alias"])
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": self.address("artifact", found.id, name)}}
            for name in found.files
        ]
        files = {"pageInfo": page, "edges": edges}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}}}

    def find_version(self, name: str, alias: str) -> Artifact | None:
        named = [one for one in self.artifacts if one.name == name and one.committed]
        return next((one for one in named if alias in one.aliases or alias == f"v{one.version}"), None)

    def artifact_of(self, key: str) -> Artifact:
        return next(one for one in self.artifacts if one.id == key)

    def give_aliases(self, artifact: Artifact, given: dict) -> None:
        """An alias belongs to one version of an artifact: the last that it was given to."""
        for alias in [one["alias"] for one in given.get("aliases") or []]:
            for other in self.artifacts:
                if other.name == artifact.name:
                    other.aliases.discard(alias)
            artifact.aliases.add(alias)

    # Files: of a run, of an artifact, and an artifact's manifest.

    def address(self, *parts: str) -> str:
        return f"{self.url}/storage/" + "/".join(quote(part, safe="") for part in parts)

    def put(self, path: str, content: bytes) -> None:
        kind, key, *name = [unquote(part) for part in path.removeprefix("/storage/").split("/")]
        with self.lock:
            if kind == "run":
                self.runs[key].files[name[0]] = content
            elif kind == "manifest":
                self.artifact_of(key).manifest = json.loads(content)
            else:
                self.artifact_of(key).files[name[0]] = content

    def get(self, path: str) -> bytes:
        kind, key, *name = [unquote(part) for part in path.removeprefix("/storage/").split("/")]
        with self.lock:
            if kind == "run":
                return self.runs[key].files[name[0]]
            artifact = self.artifact_of(key)
            return json.dumps(artifact.manifest).encode() if kind == "manifest" else artifact.files[name[0]]

    def stream(self, key: str, sent: dict[str, Any]) -> None:
        """Lines of a run's files, and its end."""
        with self.lock:
            run = self.runs[key]
            for name, part in (sent.get("files") or {}).items():
                if name == "wandb-summary.json":
                    run.summary = json.loads(part["content"][-1])
                    continue
                stored = run.lines.setdefault(name, {})
                for number, line in enumerate(part["content"], part["offset"]):
                    stored[number] = line
            if sent.get("complete"):
                run.ended, run.exit_code = True, sent.get("exitcode")


def describe_collection(artifact: Artifact) -> dict[str, Any]:
    project = {"id": "p", "internalId": "1", "name": artifact.about["projectName"], "entity": {"name": ENTITY}}
    return {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}


def describe(artifact: Artifact) -> dict[str, Any]:
    """An artifact in GraphQL."""
    collection = describe_collection(artifact)
    aliases = sorted(artifact.aliases | {f"v{artifact.version}"})
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactSequence": collection,
        "versionIndex": artifact.version,
        "artifactType": {"name": artifact.type},
        "description": None,
        "metadata": artifact.about.get("metadata"),
        "ttlDurationSeconds": -1,
        "ttlIsInherited": True,
        "tags": [],
        "historyStep": None,
        "state": "COMMITTED" if artifact.committed else "PENDING",
        "size": sum(map(len, artifact.files.values())),
        "digest": artifact.about["digest"],
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": artifact.id,
        "fileCount": len(artifact.files),
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": None,
        "aliases": [
            {"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": collection} for alias in aliases
        ],
    }


class Handler(BaseHTTPRequestHandler):
    """A request: with its trouble, if the service has one, answered or not."""

    protocol_version = "HTTP/1.1"
    service: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.answer(body)

    do_GET = do_PUT = do_POST

    def answer(self, body: bytes) -> None:
        service, asked = self.service, {}
        if self.path == "/graphql":
            asked = json.loads(body)
            asked["operation"] = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        operation = asked["operation"][1] if asked.get("operation") else ""
        run = (asked.get("variables") or {}).get("name") or ""
        trouble = service.take_trouble(f"{self.command} {operation or self.path} {run}".strip())
        if trouble == "hang":
            service.released.wait(600)
        if trouble in ("hang", "drop"):
            self.close_connection = True
            return
        if trouble and trouble.isdigit():
            self.send(int(trouble), b'{"error": "trouble"}')
            return
        if trouble == "revoke":
            service.keys = set()
        if not self.authorised():
            self.send(401, b'{"errors": [{"message": "user is not logged in"}]}')
            return
        try:
            status, content = self.serve(operation, asked, body)
        except Exception as error:  # as the real one: an error is an answer
            status, content = 400, json.dumps({"errors": [{"message": f"{type(error).__name__}: {error}"}]}).encode()
        if trouble == "drop answer":
            self.close_connection = True
            return
        self.send(status, content)

    def serve(self, operation: str, asked: dict, body: bytes) -> tuple[int, bytes]:
        service = self.service
        if asked:
            return 200, json.dumps({"data": service.answer(operation, asked.get("variables") or {})}).encode()
        if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            service.stream(unquote(stream[1]), json.loads(body))
            return 200, b"{}"
        if self.path.startswith("/storage/"):
            if self.command == "GET":
                return 200, service.get(self.path)
            service.put(self.path, body)
            return 200, b""
        return 404, b"{}"

    def authorised(self) -> bool:
        if self.path.startswith("/storage/"):
            return True  # these addresses are signed
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            given = base64.b64decode(given).decode().removeprefix("api:")
        return given in self.service.keys

    def send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Service]:
    """A service with nothing in it."""
    service = Service()
    with run_server(type("ServiceHandler", (Handler,), {"service": service})) as service.url:
        try:
            yield service
        finally:
            service.released.set()


def wait_for(condition: Any, seconds: float = 30) -> None:
    """Wait until that is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
