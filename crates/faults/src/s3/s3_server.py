"""Runs moto's S3 on free ports of loopback, with signatures and rights checked, until standard input ends.

Prints one line of JSON: the port; those behind TLS, with the certificate of their authority; one on which the bucket stands in
the host's name; a key that may do everything, one that may do nothing, and one that is lent with a token.
"""

import datetime
import ipaddress
import json
import logging
import os
import ssl
import sys
import tempfile
import threading

os.environ.update(AWS_ACCESS_KEY_ID="setup", AWS_SECRET_ACCESS_KEY="setup", AWS_DEFAULT_REGION="us-east-1")
logging.getLogger("werkzeug").setLevel(logging.ERROR)

import boto3
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.responses import S3Response
from werkzeug.serving import make_server

application = DomainDispatcherApplication(create_backend_app)


def serve(tls=None):
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler, ssl_context=tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def certificate(name, days, authority=None, hosts=()):
    """A key and a certificate that ends in `days` days, signed by `authority` or by itself."""
    own, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    names = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    key, issuer = authority or (own, None)
    made = x509.CertificateBuilder().subject_name(names).issuer_name(issuer.subject if issuer else names)
    made = made.public_key(own.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=30)).not_valid_after(now + datetime.timedelta(days=days))
    made = made.add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    if hosts:
        made = made.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return own, made.sign(key, hashes.SHA256())


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def behind_tls(days, *hosts):
    own, made = certificate("server", days, authority, hosts)
    plain = serialization.NoEncryption()
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem(made) + key)
        file.flush()
        context.load_cert_chain(file.name)
    return serve(context)


authority = certificate("authority of the tests", 30)
loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
port, hosted = serve(), serve()
tls = {
    "authority": pem(authority[1]).decode(),
    "good": behind_tls(30, loopback),
    "other_host": behind_tls(30, x509.DNSName("s3.example.com")),
    "expired": behind_tls(-1, loopback),
}

# No name below a domain leads to loopback everywhere. So on one port the bucket is the first part of the address.
by_host = S3Response.subdomain_based_buckets
S3Response.subdomain_based_buckets = staticmethod(
    lambda request: request.headers["host"].endswith(f":{hosted}") or by_host(request)
)

endpoint = f"http://127.0.0.1:{port}"
iam, s3, sts = (boto3.client(service, endpoint_url=endpoint) for service in ("iam", "s3", "sts"))


def policy(action):
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def key(user, action):
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="rights", PolicyDocument=policy(action))
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return {"id": made["AccessKeyId"], "key": made["SecretAccessKey"]}


def lent():
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="lent", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="lent", PolicyName="rights", PolicyDocument=policy("s3:*"))
    made = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return {"id": made["AccessKeyId"], "key": made["SecretAccessKey"], "token": made["SessionToken"]}


keys = {"port": port, "hosted": hosted, "tls": tls, "all": key("all", "s3:*"), "none": key("none", "sqs:*"), "lent": lent()}
for bucket in ("backups", "127"):
    s3.create_bucket(Bucket=bucket)
requests.post(f"{endpoint}/moto-api/reset-auth", data="0", headers={"content-type": "text/plain"}, timeout=10)
print(json.dumps(keys), flush=True)
sys.stdin.read()
os._exit(0)
