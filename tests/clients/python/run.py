"""Makes the calls that it reads with the official Python REST client and prints what the client made of the answers.

Proves nothing by itself: `tests/e2e/test_clients.py` says what to call and what to expect. Runs with the newest version of
the client and with the last one of its older generator.
"""

import importlib
import json
import re
import sys

from launchdarkly_api import ApiClient, ApiException, Configuration
from launchdarkly_api.api.contexts_api import ContextsApi
from launchdarkly_api.api.users_api import UsersApi


def snake(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def model(name, fields):
    """A body: an object of the client's own class, which version 18 moved."""
    try:
        module = importlib.import_module(f"launchdarkly_api.models.{snake(name)}")
    except ModuleNotFoundError:
        module = importlib.import_module(f"launchdarkly_api.model.{snake(name)}")
    return getattr(module, name)(**{snake(field): value for field, value in fields.items()})


def argument(name, value):
    return model(name[0].upper() + name[1:], value) if isinstance(value, dict) else value


def refusal(client, error):
    """Version 25 decodes errors, version 17 leaves that to its user."""
    decoded = getattr(error, "data", None)
    return client.sanitize_for_serialization(decoded) if decoded else json.loads(error.body)


def perform(call):
    configuration = Configuration(host=call["url"])
    configuration.api_key["ApiKey"] = call["token"]
    client = ApiClient(configuration)
    services = [ContextsApi(client), UsersApi(client)]
    methods = [getattr(service, snake(call["operation"]), None) for service in services]
    method = next(filter(None, methods), None)
    if method is None:
        return {"absent": True}
    parameters = {snake(name): argument(name, value) for name, value in call["parameters"].items()}
    try:
        return {"value": client.sanitize_for_serialization(method(*call["path"], **parameters))}
    except ApiException as error:
        return {"status": error.status, "error": refusal(client, error)}


def outcome(call):
    try:
        return perform(call)
    except Exception as error:  # noqa: BLE001 - whatever the client stumbles over is what the test wants to see
        return {"fault": f"{type(error).__name__}: {error}"}


for line in sys.stdin:
    print(json.dumps(outcome(json.loads(line))), flush=True)
