"""The jobs that fill the logs: polling, running, watching, alerting."""

from ingestion.jobs.alerts import Incident, open_incidents
from ingestion.jobs.backfill import BackfilledFile, BackfillReport, backfill
from ingestion.jobs.draining import OnceReport, drain
from ingestion.jobs.http import bind
from ingestion.jobs.job import Job, Part
from ingestion.jobs.metrics import Metrics
from ingestion.jobs.observability import Redactor, configure_logging, logger, named_secrets
from ingestion.jobs.polling import PollReport, poll_once
from ingestion.jobs.receiving import Receiving
from ingestion.jobs.recent import History, Recent, Spread
from ingestion.jobs.releasing import contract_check, payload_parser
from ingestion.jobs.start import PORT, JobSettings, once, run
from ingestion.jobs.status import Status, judge, status_of
from ingestion.jobs.workplace import Polled, Workplace

__all__ = [
    # one poll
    "poll_once",
    "PollReport",
    # all of them
    "run",
    "once",
    "JobSettings",
    "PORT",
    "OnceReport",
    "Job",
    "Part",
    "Workplace",
    "Polled",
    "drain",
    # rows that are sent
    "Receiving",
    "bind",
    # quarantined rows
    "contract_check",
    "payload_parser",
    # history
    "backfill",
    "BackfillReport",
    "BackfilledFile",
    # telling
    "configure_logging",
    "logger",
    "Redactor",
    "named_secrets",
    "Metrics",
    # watching
    "open_incidents",
    "Incident",
    "status_of",
    "History",
    "judge",
    "Status",
    "Recent",
    "Spread",
]
