"""Reads `/metrics` as a scraper would."""

import re


def metric(server, name, **labels):
    """Sum of the samples of one metric whose labels include the given ones; None if there is no such sample."""
    found = None
    for line in server.get("/metrics").body.decode().splitlines():
        match = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", line)
        if match and match.group(1) == name:
            present = dict(re.findall(r'(\w+)="([^"]*)"', match.group(2) or ""))
            if labels.items() <= present.items():
                found = (found or 0.0) + float(match.group(3))
    return found


def metric_names(server):
    return {
        re.split(r"[{ ]", line)[0]
        for line in server.get("/metrics").body.decode().splitlines()
        if line and line[0] != "#"
    }
