"""A stand-in for Weights & Biases on this machine: what its client asks over HTTP is answered, and remembered.

It answers only what the pinned client asks; `unknown` has the names of what it could not answer, which a test holds to
be none.
"""

import base64
import gzip
import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import yaml

KEY = "0123456789abcdef0123456789abcdef01234567"
AUTHORIZATION = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
ENTITY = "somebody"
VIEWER = {
    "id": "VXNlcjox",
    "entity": ENTITY,
    "username": ENTITY,
    "name": ENTITY,
    "email": "somebody@example.org",
    "admin": False,
    "flags": "{}",
    "teams": {"edges": [{"node": {"name": ENTITY}}]},
    "apiKeys": {"edges": []},
    "capabilities": [],
}
OPERATION = re.compile(r"\b(query|mutation)\s+(\w+)")


class Server:
    """Listens on a free port of 127.0.0.1 while it is entered.

    runs: by id, each with "rows" (its history), "summary", "config", "exit" (what it said at its end) and what it was
    created with; artifacts: by name, a list of versions with "files", "aliases", "used_by"; asked: every operation.
    """

    def __init__(self):
        self.runs, self.artifacts, self.sweeps, self.files = {}, {}, {}, {}
        self.asked, self.unknown, self.views = [], [], []
        self.lock = threading.RLock()
        self.http = None
        self.speaking = threading.Event()
        self.speaking.set()

    def __enter__(self):
        server = self

        class Handler(Answers):
            world = server

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """As if the cable were pulled: nobody listens at the port any more."""
        if self.http is not None:
            self.http.shutdown()
            self.http.server_close()
            self.thread.join()
            self.http = None

    def fall_silent(self):
        """Connections are accepted from now on, and no request is answered."""
        self.speaking.clear()

    @property
    def environment(self):
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    # --- GraphQL ----------------------------------------------------------------------------------------------------

    def query(self, asked):
        """The reply to a GraphQL request; an answer is a method named after the operation, and takes its variables."""
        name = OPERATION.search(asked["query"])[2]
        variables = asked.get("variables") or {}
        self.asked.append((name, variables))
        try:
            return {"data": getattr(self, f"answer_{snake_case(name)}")(variables.get("input", variables))}
        except (AttributeError, KeyError, TypeError, StopIteration) as error:
            self.unknown.append((name, repr(error), asked["query"], variables))
            return {"errors": [{"message": f"{name}: {error!r}"}], "data": None}

    def take_in(self, run_id, sent):
        """Rows of the history, the summary, and how the run ended."""
        run = self.runs[run_id]
        for name, part in sent.get("files", {}).items():
            if name == "wandb-history.jsonl":
                run["rows"] |= {part["offset"] + i: json.loads(line) for i, line in enumerate(part["content"])}
            elif name == "wandb-summary.json":
                run["summary"] = json.loads(part["content"][-1])
        if sent.get("complete"):
            run["exit"] = sent["exitcode"]

    def answer_viewer(self, asked):
        return {"viewer": VIEWER}

    answer_get_default_entity = answer_viewer

    def answer_run_resume_status(self, asked):
        run = self.runs.get(asked["name"])
        return {
            "model": {"id": "project", "name": asked["project"], "entity": ENTITY_NODE, "bucket": run and bucket(run)}
        }

    def answer_upsert_bucket(self, asked):
        new = asked["name"] not in self.runs
        run = self.runs.setdefault(asked["name"], {"id": asked["name"], "rows": {}, "summary": {}, "exit": None})
        run |= {key: value for key, value in asked.items() if value is not None and key not in ("id", "config")}
        if asked.get("config"):
            run["config"] = {key: entry["value"] for key, entry in json.loads(asked["config"]).items()}
        return {"upsertBucket": {"bucket": bucket(run), "inserted": new}}

    def answer_organization_core_weave_organization_id(self, asked):
        return {"entity": {"organization": None}}

    def answer_server_features_query(self, asked):
        return {"serverInfo": {"features": []}}

    def answer_create_run_files(self, asked):
        files = [{"name": name, "uploadUrl": self.place(f"runs/{asked['run']}/{name}")} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def answer_create_artifact(self, asked):
        name = asked["artifactCollectionName"]
        versions = self.artifacts.setdefault(name, [])
        version = next((v for v in versions if v["digest"] == asked["digest"]), None)
        if version is None:
            version = {"id": f"{name}-{len(versions)}", "name": name, "type": asked["artifactTypeName"], "files": {}}
            version |= {"digest": asked["digest"], "state": "PENDING", "aliases": [], "used_by": [], "made_by": None}
            version["metadata"] = json.loads(asked.get("metadata") or "{}")
            versions.append(version)
        version["made_by"] = version["made_by"] or asked["runName"]
        version["aliases"] += [alias["alias"] for alias in asked["aliases"] or []]
        latest = {"id": versions[-2]["id"]} if len(versions) > 1 else None
        artifact = {"id": version["id"], "state": version["state"], "artifactSequence": {"latestArtifact": latest}}
        return {"createArtifact": {"artifact": artifact}}

    def version(self, artifact_id):
        return next(v for versions in self.artifacts.values() for v in versions if v["id"] == artifact_id)

    def answer_create_artifact_manifest(self, asked):
        artifact = asked.get("artifactID")
        where = {"id": "file", "name": asked["name"], "displayName": asked["name"]}
        where |= {"uploadUrl": self.place(f"manifests/{artifact}"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"manifest-{artifact}", "file": where}}}

    def answer_create_artifact_files(self, asked):
        edges = []
        for given in asked["artifactFiles"]:
            version = self.version(given["artifactID"])
            path = f"artifacts/{version['id']}/{given['name']}"
            version["files"][given["name"]] = f"/storage/{path}"
            node = {"id": "file", "name": given["name"], "displayName": given["name"], "uploadUrl": self.place(path)}
            node |= {"uploadHeaders": [], "storagePath": path, "artifact": {"id": version["id"]}}
            edges.append({"node": node | {"uploadMultipartUrls": None}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def answer_commit_artifact(self, asked):
        version = self.version(asked["artifactID"])
        version["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": version["id"], "digest": version["digest"]}}}

    def answer_use_artifact(self, asked):
        version = self.version(asked["artifactID"])
        version["used_by"].append(asked["runName"])
        return {"useArtifact": {"artifact": {"id": version["id"], "digest": version["digest"]}}}

    def answer_artifact_membership_by_name(self, asked):
        name, _, alias = asked["name"].partition(":")
        found = [v for v in self.artifacts.get(name, []) if alias in v["aliases"] and v["state"] == "COMMITTED"]
        return {"project": {"artifactCollectionMembership": membership(found[-1]) if found else None}}

    def answer_upsert_view2(self, asked):
        self.views.append({**asked, "spec": json.loads(asked["spec"])})
        return {"upsertView": {"view": {"id": "view", "name": asked["name"]}, "inserted": True}}

    def answer_upsert_sweep(self, asked):
        config = yaml.safe_load(asked["config"])
        name = f"sweep{len(self.sweeps)}"
        named = list(config["parameters"])
        values = [choices(config["parameters"][key]) for key in named]
        trials = [dict(zip(named, drawn, strict=True)) for drawn in itertools.product(*values)]
        self.sweeps[name] = {"config": config, "left": trials, "handed_out": []}
        project = {"id": "project", "name": asked["projectName"], "entity": ENTITY_NODE}
        return {"upsertSweep": {"sweep": {"name": name, "project": project}, "configValidationWarnings": []}}

    def answer_sweep_with_runs(self, asked):
        sweep = self.sweeps[asked["sweep"]]
        said = {"id": asked["sweep"], "name": asked["sweep"], "method": sweep["config"]["method"], "state": "RUNNING"}
        said |= {"config": yaml.safe_dump(sweep["config"]), "description": None, "createdAt": None, "controller": None}
        said |= {"heartbeatAt": None, "updatedAt": None, "earlyStopJobRunning": False, "bestLoss": None}
        return {"project": {"sweep": said | {"scheduler": None, "runs": {"edges": []}}}}

    def answer_create_agent(self, asked):
        return {"createAgent": {"agent": {"id": asked["sweep"]}}}

    def answer_heartbeat(self, asked):
        sweep, commands = self.sweeps[asked["id"]], []
        if not json.loads(asked["runState"]):  # an agent without a run wants one
            if sweep["left"]:
                trial, run_id = sweep["left"].pop(0), f"{asked['id']}run{len(sweep['handed_out'])}"
                sweep["handed_out"].append((run_id, trial))
                arguments = {key: {"value": value} for key, value in trial.items()}
                program = sweep["config"]["program"]
                commands = [{"type": "run", "run_id": run_id, "program": program, "args": arguments}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": asked["id"]}, "commands": json.dumps(commands)}}

    def place(self, path):
        return f"{self.url}/storage/{quote(path)}"

    def answer_artifact_type(self, asked):
        found = self.artifacts.get(asked["name"].partition(":")[0])
        return {"project": {"artifact": found and {"artifactType": {"name": found[0]["type"]}}}}


def snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def choices(parameter):
    """A few values of a sweep's parameter."""
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def bucket(run):
    """What a query gets of a run."""
    rows = [json.dumps(row) for _, row in sorted(run["rows"].items())]
    return {
        "id": f"bucket-{run['id']}",
        "name": run["id"],
        "displayName": run.get("displayName"),
        "description": None,
        "notes": None,
        "sweepName": run.get("sweep"),
        "project": {"id": "project", "name": run.get("project", "engrec"), "entity": ENTITY_NODE},
        "config": json.dumps({key: {"value": value} for key, value in run.get("config", {}).items()}),
        "summaryMetrics": json.dumps(run["summary"]),
        "historyLineCount": len(rows),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps(rows[-1:]),
        "eventsTail": "[]",
        "tags": run.get("tags", []),
        "wandbConfig": json.dumps({"t": {}}),
    }


def membership(version):
    """What a query gets of an artifact by its name."""
    project = {"id": "project", "internalId": "1", "name": "engrec", "entity": ENTITY_NODE}
    collection = {"__typename": "ArtifactSequence", "name": version["name"], "project": project}
    aliases = [{"__typename": "ArtifactAlias", "id": alias, "alias": alias} for alias in version["aliases"]]
    then = "2026-01-01T00:00:00Z"
    artifact = {
        "__typename": "Artifact",
        "id": version["id"],
        "artifactSequence": {"id": "collection", **collection},
        "versionIndex": 0,
        "artifactType": {"name": version["type"]},
        "description": None,
        "metadata": json.dumps(version["metadata"]),
        "ttlDurationSeconds": -1,
        "ttlIsInherited": False,
        "tags": [],
        "historyStep": None,
        "state": version["state"],
        "size": 1,
        "digest": version["digest"],
        "commitHash": "hash",
        "fileCount": len(version["files"]),
        "createdAt": then,
        "updatedAt": then,
        "aliases": [{**alias, "artifactCollection": collection} for alias in aliases],
    }
    said = {"__typename": "ArtifactCollectionMembership", "id": "membership", "versionIndex": 0, "createdAt": then}
    return said | {"aliases": aliases, "artifactCollection": collection, "artifact": artifact}


ENTITY_NODE = {"id": "entity", "name": ENTITY}


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        """A client that was killed leaves connections behind."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            raw = b"".join(parts)
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw

    def reply(self, value, status=200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        raw = self.body()
        self.world.speaking.wait()
        with self.world.lock:
            if self.headers.get("Authorization") not in (None, AUTHORIZATION):
                self.reply({"errors": [{"message": "user is not logged in"}]}, status=401)
            elif self.path == "/graphql":
                self.reply(self.world.query(json.loads(raw)))
            elif stream := re.fullmatch(r"/files/(?:[^/]+/)*([^/]+)/file_stream", self.path):
                self.world.take_in(stream[1], json.loads(raw))
                self.reply({"exitcode": None, "limits": {}})
            else:
                self.reply({})  # telemetry

    def do_PUT(self):
        raw = self.body()
        self.world.speaking.wait()
        with self.world.lock:
            self.world.files[unquote(self.path)] = raw
        self.reply({})

    def do_GET(self):
        self.world.speaking.wait()
        self.reply({})
