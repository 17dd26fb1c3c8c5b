"""Runs moto's S3 on a free port of loopback, with signatures and rights checked, until standard input ends.

Prints one line of JSON: the port, a key that may do everything, one that may do nothing, and one that is lent with a token.
"""

import json
import logging
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="setup", AWS_SECRET_ACCESS_KEY="setup", AWS_DEFAULT_REGION="us-east-1")
logging.getLogger("werkzeug").setLevel(logging.ERROR)

import boto3
import requests
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
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


keys = {"port": port, "all": key("all", "s3:*"), "none": key("none", "sqs:*"), "lent": lent()}
s3.create_bucket(Bucket="backups")
requests.post(f"{endpoint}/moto-api/reset-auth", data="0", headers={"content-type": "text/plain"}, timeout=10)
print(json.dumps(keys), flush=True)
sys.stdin.read()
os._exit(0)
