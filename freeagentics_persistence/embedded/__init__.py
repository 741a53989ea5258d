"""Local PostgreSQL and Valkey servers that start from installed wheels into one data folder."""

from __future__ import annotations

from freeagentics_persistence.embedded.data_folder import default_data_folder
from freeagentics_persistence.embedded.servers import EmbeddedServers
from freeagentics_persistence.embedded.urls import EmbeddedUrls

__all__ = ["EmbeddedServers", "EmbeddedUrls", "default_data_folder"]
