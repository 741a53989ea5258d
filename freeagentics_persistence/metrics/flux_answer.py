"""Answers to Flux queries: tables in CSV with columns _time, _field and _value."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import datetime

from freeagentics_persistence.errors import MetricsUnavailable
from freeagentics_persistence.ports.metrics import MetricPoint


def points_by_field(answer: str, where: str) -> dict[str, list[MetricPoint]]:
    """The points of an answer, by time.

    Tables begin with a header and end with an empty line. What goes wrong once the answer is on its way comes as a
    table too, and raises MetricsUnavailable.
    """
    found: dict[str, list[MetricPoint]] = defaultdict(list)
    header: dict[str, int] | None = None
    for row in csv.reader(io.StringIO(answer, newline="")):
        if not row:
            header = None
        elif header is None:
            header = {name: i for i, name in enumerate(row)}
        elif "error" in header:
            raise MetricsUnavailable(
                f"{where}: the query failed ({row[header['error']]}). freeagentics-db check tells more."
            )
        else:
            name, moment = row[header["_field"]], datetime.fromisoformat(row[header["_time"]])
            found[name].append(MetricPoint(moment, name, float(row[header["_value"]])))
    return {name: sorted(points, key=lambda point: point.time) for name, points in found.items()}
