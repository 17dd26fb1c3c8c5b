"""Speaks the XML API of Google Cloud Storage on a port of loopback, and keeps everything in an S3 server, until standard input ends.

It is a translator and no store: what it is asked in Google's dialect it signs and asks the S3 server, and answers in Google's
dialect. Whatever it does not know how to translate it refuses. What it knows follows Google's documentation:

  tokens       https://google.aip.dev/auth/4111
  errors       https://cloud.google.com/storage/docs/xml-api/reference-status
  headers      https://cloud.google.com/storage/docs/xml-api/reference-headers
  conditions   https://cloud.google.com/storage/docs/request-preconditions
  lists        https://cloud.google.com/storage/docs/xml-api/get-bucket-list
  deletions    https://cloud.google.com/storage/docs/xml-api/delete-object
  write rates  https://cloud.google.com/storage/docs/gcs429

The first line of standard input is JSON: the S3 server's port and keys. It prints one line of JSON: its own port, and three
service accounts' keys, as Google hands them out. Then each further line is a command, which is answered with a line:
`expire` makes all tokens worthless that were shown so far; `tokens` says how many were accepted; `limit` switches the limit of
one write per second and object on.
"""

import base64
import hashlib
import html
import http.client
import json
import logging
import os
import re
import sys
import threading
import time
from urllib.parse import quote, urlencode

logging.getLogger("werkzeug").setLevel(logging.ERROR)

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

SCOPES = {"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/devstorage.read_write"}
# What clocks may differ by, in seconds.
SKEW = 300
LIST = {"list-type", "delimiter", "prefix", "continuation-token", "max-keys", "start-after"}
HEADERS = {"authorization", "content-length", "content-type", "host", "range", "user-agent", "accept", "accept-encoding",
           "connection", "x-goog-if-generation-match"}
MESSAGES = {
    "AccessDenied": "Access denied.",
    "AuthenticationRequired": "Authentication required.",
    "InvalidArgument": "Invalid argument.",
    "InvalidRange": "The requested range cannot be satisfied.",
    "NoSuchBucket": "The specified bucket does not exist.",
    "NoSuchKey": "The specified key does not exist.",
    "PreconditionFailed": "At least one of the pre-conditions you specified did not hold.",
    "SlowDown": "The object exceeded the rate limit for object mutation operations (create, update, and delete).",
}

given = json.loads(sys.stdin.readline())
lock, writing = threading.Lock(), threading.Lock()
accounts, accepted, expired = {}, set(), set()
generations, written, limit = {}, {}, False


def account(name, s3_key):
    """A service account's key as Google hands it out; Google knows its public half where there is an S3 key for it."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_id, email = os.urandom(20).hex(), f"{name}@lvault-test.iam.gserviceaccount.com"
    if s3_key:
        accounts[key_id] = (email, made.public_key(), Credentials(s3_key["id"], s3_key["key"]))
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return json.dumps({
        "type": "service_account", "project_id": "lvault-test", "private_key_id": key_id, "private_key": pem,
        "client_email": email, "client_id": "1", "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token", "universe_domain": "googleapis.com",
    })


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def who(authorization):
    """The S3 credentials of whoever signed the token, or None: nobody, or not now."""
    scheme, _, token = authorization.partition(" ")
    try:
        head, claims, signature = token.split(".")
        header, said = json.loads(decoded(head)), json.loads(decoded(claims))
        email, public, credentials = accounts[header["kid"]]
        public.verify(decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        now, made, until = time.time(), int(said["iat"]), int(said["exp"])
        rights = set(said["scope"].split())
    except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature):
        return None
    # A token names either scopes or an audience, and lives for an hour at most.
    good = scheme == "Bearer" and header["alg"] == "RS256" and header.get("typ") == "JWT" and "aud" not in said
    good = good and said["iss"] == said["sub"] == email and bool(rights & SCOPES)
    good = good and made <= now + SKEW and now < until + SKEW and 0 < until - made <= 3600
    with lock:
        good = good and token not in expired
        if good:
            accepted.add(token)
    return credentials if good else None


def refusal(status, code, details=None):
    details = f"<Details>{html.escape(details)}</Details>" if details else ""
    message = MESSAGES.get(code, "An error occurred.")
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>{details}</Error>"
    return Response(text, status, content_type="application/xml; charset=UTF-8")


def ask(credentials, method, path, query=None, headers=(), body=b""):
    """The S3 server's answer: status, headers, body."""
    target = quote(path, safe="/~-._") + ("?" + urlencode(query, quote_via=quote) if query else "")
    asked = AWSRequest(method, f"http://127.0.0.1:{given['port']}{target}", headers=dict(headers), data=body)
    S3SigV4Auth(credentials, "s3", "us-east-1").add_auth(asked)
    connection = http.client.HTTPConnection("127.0.0.1", given["port"], timeout=60)
    try:
        connection.request(method, target, body, dict(asked.headers.items()))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def refused(status, body):
    """The S3 server's refusal, in Google's words. Answers to HEAD have no body, and so no code."""
    code = re.search(rb"<Code>(\w+)</Code>", body)
    return refusal(status, code[1].decode() if code else {404: "NoSuchKey", 403: "AccessDenied"}.get(status, "Unknown"))


def listed(text, bucket):
    """A list as Google gives it: with each object's generation, and without what S3 says besides."""
    def generation(found):
        number = generations.get(f"/{bucket}/{html.unescape(found[1])}", 1)
        return f"{found[0]}<Generation>{number}</Generation><MetaGeneration>1</MetaGeneration>"

    text = re.sub(r'xmlns="[^"]*"', 'xmlns="http://doc.s3.amazonaws.com/2006-03-01"', text)
    text = re.sub(r"<StorageClass>\w*</StorageClass>|<Owner>.*?</Owner>", "", text, flags=re.S)
    return re.sub(r"<Key>(.*?)</Key>", generation, text, flags=re.S)


def is_too_fast(path):
    """Whether this object was written less than a second ago."""
    now = time.monotonic()
    is_limited = limit and now - written.get(path, now - 1) < 1
    if not is_limited:
        written[path] = now
    return is_limited


def write(credentials, request, path):
    condition = request.headers.get("x-goog-if-generation-match")
    if condition not in (None, "0"):
        return refusal(400, "InvalidArgument", "only the condition that there is no object can be translated")
    body = request.get_data()
    # Google's condition holds for concurrent writers too; the S3 server looks and writes in two steps.
    with writing:
        is_there = ask(credentials, "HEAD", path)[0] == 200
        if condition == "0" and is_there:
            return refusal(412, "PreconditionFailed")
        if is_too_fast(path):
            return refusal(429, "SlowDown", f"The object {path} exceeded the rate limit")
        headers = {"content-type": request.headers.get("content-type", "application/octet-stream")}
        if condition == "0":
            headers["if-none-match"] = "*"
        status, told, text = ask(credentials, "PUT", path, None, headers, body)
        if status != 200:
            return refused(status, text)
        generations[path] = max(time.time_ns() // 1000, generations.get(path, 0) + 1)
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    return Response(b"", 200, about(path, len(body)) | {"etag": told["etag"], "x-goog-hash": f"md5={md5}"})


def about(path, length):
    return {
        "x-goog-generation": str(generations.get(path, 1)), "x-goog-metageneration": "1",
        "x-goog-stored-content-encoding": "identity", "x-goog-stored-content-length": str(length),
        "x-goog-storage-class": "STANDARD",
    }


def read(credentials, request, path):
    headers = {"range": request.headers["range"]} if "range" in request.headers else {}
    status, told, body = ask(credentials, request.method, path, None, headers)
    if status not in (200, 206):
        return refused(status, body)
    whole = told.get("content-range", "/" + told["content-length"]).rpartition("/")[2]
    kept = ("etag", "last-modified", "content-type", "content-range", "content-length", "accept-ranges")
    answer = about(path, whole) | {name: told[name] for name in kept if name in told}
    # As a list, since the length of an answer to HEAD is that of the object.
    return Response([body] if body else [], status, answer)


def delete(credentials, path):
    # Google says that there was nothing; S3 does not.
    with writing:
        status, _, body = ask(credentials, "HEAD", path)
        if status != 200:
            return refused(status, body)
        if is_too_fast(path):
            return refusal(429, "SlowDown", f"The object {path} exceeded the rate limit")
        status, _, body = ask(credentials, "DELETE", path)
        generations.pop(path, None)
        return Response(b"", 204) if status == 204 else refused(status, body)


def translate(request):
    # Whatever the answer: a server that leaves a body unread breaks the connection.
    request.get_data()
    credentials = who(request.headers.get("authorization", ""))
    if credentials is None:
        return refusal(401, "AuthenticationRequired")
    foreign = {name.lower() for name in request.headers.keys()} - HEADERS
    bucket, _, name = request.path.lstrip("/").partition("/")
    query = list(request.args.items(multi=True))
    if foreign or not bucket:
        return refusal(400, "InvalidArgument", f"not translated: {sorted(foreign)} {request.path}")
    if not name and request.method == "GET" and {key for key, _ in query} <= LIST and ("list-type", "2") in query:
        status, _, body = ask(credentials, "GET", f"/{bucket}", query)
        if status != 200:
            return refused(status, body)
        return Response(listed(body.decode(), bucket), 200, content_type="application/xml; charset=UTF-8")
    path = f"/{bucket}/{name}"
    if name and not query:
        if request.method in ("GET", "HEAD"):
            return read(credentials, request, path)
        if request.method == "PUT":
            return write(credentials, request, path)
        if request.method == "DELETE":
            return delete(credentials, path)
    return refusal(400, "InvalidArgument", f"not translated: {request.method} {request.path} {query}")


def application(environ, start_response):
    request = Request(environ)
    try:
        answer = translate(request)
    except Exception as error:  # What goes wrong here is said in the test's output, and is no answer of Google's.
        print(f"the front failed: {error!r}", file=sys.stderr)
        answer = refusal(500, "InternalError")
    return answer(environ, start_response)


told = {
    "all": account("all", given["all"]), "none": account("none", given["none"]), "deleted": account("deleted", None),
}
server = make_server("127.0.0.1", 0, application, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps(told | {"port": server.server_port}), flush=True)
for command in sys.stdin:
    if command == "expire\n":
        # A token made anew in the same second would be the same one.
        time.sleep(1 - time.time() % 1)
        with lock:
            expired |= accepted
    elif command == "limit\n":
        limit = True
    print(len(accepted), flush=True)
os._exit(0)
