"""A server of the Hugging Face Hub's HTTP API on loopback, with its repositories in memory.

It knows what huggingface_hub asks for: making a repository, a commit, the tree, and the files.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "cafe"
REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
TOKEN = "hf_secret"


def oid(content):
    return hashlib.sha1(content).hexdigest()


class Hub:
    """Repositories as dicts of files, and the requests that came."""

    def __init__(self):
        self.repos, self.private, self.requests = {}, {}, []

    def tree(self, repo, folder, recursive):
        folders = set()
        for path, content in sorted(self.repos[repo].items()):
            if folder and not path.startswith(f"{folder}/"):
                continue
            rest = path[len(folder) + 1 :] if folder else path
            if "/" in rest and not recursive:
                folders.add(path[: len(path) - len(rest)] + rest.split("/")[0])
            else:
                yield dict(type="file", path=path, size=len(content), oid=oid(content))
        for name in sorted(folders):
            yield dict(type="directory", path=name, size=0, oid=oid(name.encode()))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    @property
    def url(self):
        return "http://{}:{}".format(*self.server.server_address)

    def answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.answer({"error": code}, 404, X_Error_Code=code)

    def repo_of(self, match):
        repo = match["repo"]
        if repo not in self.hub.repos or (self.hub.private[repo] and not self.may_write()):
            self.missing("RepoNotFound")
            return None
        if match.groupdict().get("revision") not in (None, "main", COMMIT):
            self.missing("RevisionNotFound")
            return None
        return repo

    def may_write(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(rf"/api/models/{REPO}(?:/revision/(?P<revision>.+))?", path):
            if repo := self.repo_of(match):
                files = [dict(rfilename=name) for name in sorted(self.hub.repos[repo])]
                self.answer(dict(id=repo, modelId=repo, sha=COMMIT, siblings=files, private=False))
        elif match := re.fullmatch(
            rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)/?(?P<folder>.*)", path
        ):
            if repo := self.repo_of(match):
                entries = list(
                    self.hub.tree(repo, match["folder"], "recursive=true" in url.query.lower())
                )
                self.answer(entries) if entries else self.missing("EntryNotFound")
        elif match := re.fullmatch(rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path):
            if repo := self.repo_of(match):
                content = self.hub.repos[repo].get(match["file"])
                if content is None:
                    self.missing("EntryNotFound")
                else:
                    etag = f'"{oid(content)}"'
                    self.answer(content, ETag=etag, X_Repo_Commit=COMMIT)
        else:
            self.missing("EntryNotFound")

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"POST {path}")
        if path == "/api/validate-yaml":
            self.answer(dict(errors=[], warnings=[]))
        elif match := re.fullmatch(rf"/api/models/{REPO}/paths-info/(?P<revision>.+)", path):
            if repo := self.repo_of(match):
                wanted = json.loads(body)["paths"]
                files = self.hub.tree(repo, "", True)
                self.answer([entry for entry in files if entry["path"] in wanted])
        elif not self.may_write():
            self.answer(dict(error="Invalid credentials."), 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.hub.repos.setdefault(repo, {})
            self.hub.private[repo] = asked.get("visibility") == "private"
            self.answer(dict(url=f"{self.url}/{repo}", id=repo, name=repo))
        elif re.fullmatch(rf"/api/models/{REPO}/preupload/main", path):
            modes = [
                dict(path=file["path"], uploadMode="regular", shouldIgnore=False)
                for file in json.loads(body)["files"]
            ]
            self.answer(dict(files=modes))
        elif match := re.fullmatch(rf"/api/models/{REPO}/commit/main", path):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    content = base64.b64decode(value["content"])
                    self.hub.repos[match["repo"]][value["path"]] = content
            self.answer(
                dict(commitOid=COMMIT, commitUrl=f"{self.url}/{match['repo']}/commit/{COMMIT}")
            )
        else:
            self.missing("EntryNotFound")


@contextlib.contextmanager
def serve_hub():
    """Yields the hub and its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
