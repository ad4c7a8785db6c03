"""Logging: one line a record on standard error, for people or for machines."""

import json
import logging
import os
import sys
import warnings
from datetime import UTC, datetime

from service.config import LogFormat


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(log_format: LogFormat) -> None:
    """Send records of level INFO and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(_Json() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Pillow's messages concern clients' images, one of which can cause 65,000 of them.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # any client's malformed form causes warnings
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # What gRPC's core writes by itself, also at ERROR, is no record and may hold a client's text. What fails at the
    # start is an error of Python's, too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
    logging.captureWarnings(True)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the trace that gRPC logs for a client that leaves before its answer is written."""
    return not record.getMessage().startswith("ExecuteBatchError")
