"""Configuration files for the servers under test, with keys that are fake on sight.

The keys of the environment `default`/`dev` are those of the recorded SDK requests.
"""

import json
from dataclasses import dataclass

WRITER_TOKEN = "api-00000000-0000-4000-8000-0000000000aa"
READER_TOKEN = "api-00000000-0000-4000-8000-0000000000bb"


@dataclass(frozen=True)
class Environment:
    """One environment with one key of each sort."""

    project: str
    key: str
    sdk_key: str
    mobile_key: str
    client_side_id: str

    @classmethod
    def numbered(cls, project, key, number):
        return cls(
            project,
            key,
            f"sdk-00000000-0000-4000-8000-{number:012x}",
            f"mob-00000000-0000-4000-8000-{number:012x}",
            f"{number:024x}",
        )

    @property
    def path(self):
        """The part of a REST path that names this environment."""
        return f"projects/{self.project}/environments/{self.key}"


RECORDED = Environment(
    "default",
    "dev",
    "sdk-00000000-0000-4000-8000-00000000000a",
    "mob-00000000-0000-4000-8000-00000000000a",
    "0000000000000000000000aa",
)
OTHER = Environment.numbered("default", "staging", 0xB)

# Short intervals, so that tests wait less; everything else is as shipped.
QUICK = {"compactor": {"commit_interval": "500ms"}, "indexer": {"commit_interval": "200ms"}}


def merged(base, extra):
    """`base` with the sections of `extra` laid over it."""
    return {name: {**base.get(name, {}), **extra.get(name, {})} for name in {**base, **extra}}


def _table(name, pairs):
    return "\n".join([name, *(f"{key} = {json.dumps(value)}" for key, value in pairs.items())]) + "\n"


def _environment(environment):
    return _table(
        "[[environments]]",
        {
            "project": environment.project,
            "key": environment.key,
            "sdk_keys": [environment.sdk_key],
            "mobile_keys": [environment.mobile_key],
            "client_side_ids": [environment.client_side_id],
        },
    )


def to_toml(environments, settings):
    """The text of a config file; `settings` maps section names to settings, `""` being the top level."""
    top = [f"{key} = {json.dumps(value)}\n" for key, value in settings.get("", {}).items()]
    sections = [_table(f"[{name}]", pairs) for name, pairs in sorted(settings.items()) if name]
    tokens = [
        _table("[[api_tokens]]", {"token": WRITER_TOKEN, "role": "writer"}),
        _table("[[api_tokens]]", {"token": READER_TOKEN, "role": "reader"}),
    ]
    return "\n".join(["".join(top), *sections, *map(_environment, environments), *tokens])
