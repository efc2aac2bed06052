"""The rules of time: frames in, frames out."""

from alignment.arrivals import transform_arrivals
from alignment.dataset import Dataset, Rebuilt, build_dataset, rebuild
from alignment.delay_fitting import compare_delays, fit_delay, fit_fixed_delay, fit_publish_schedule
from alignment.delay_report import DelayReport, assess_delay
from alignment.delays import DelayRule, FixedDelay, PublishSchedule, ShiftedDelay
from alignment.dry_run import BuildPlan, plan_dataset
from alignment.empirical_delay import EmpiricalDelay
from alignment.engines.spark.failures import spark_errors
from alignment.errors import (
    AddressError,
    AggregateOverflowError,
    AlignmentError,
    AmbiguousRevisionsError,
    ColumnTypeError,
    DatasetError,
    DefinitionError,
    DelayFitError,
    DuplicateColumnError,
    DurationError,
    EventAfterArrivalError,
    FeatureError,
    FrameError,
    KeyTypeError,
    LabelError,
    MemoryLimitError,
    MissingColumnError,
    MissingFileError,
    NaiveTimeError,
    NullKeyError,
    NullTimeError,
    RevisionError,
    ServiceError,
    SpillError,
    StoreError,
    UnknownArrivalError,
    UnknownEngineError,
    ViewError,
)
from alignment.explain import explain
from alignment.explain_report import Explanation, FeatureExplanation
from alignment.features import (
    Feature,
    arrival_age,
    event_age,
    forecast,
    issue_age,
    lag,
    latest,
    sequence,
    window,
)
from alignment.join import point_in_time_join
from alignment.labels import Label, label
from alignment.leakage import LeakReport, leak_report
from alignment.maturity import LabelMaturity, label_maturity
from alignment.observations import Observations, ObservationSource
from alignment.outage_drawing import draw_outages
from alignment.outage_finding import find_outages
from alignment.outages import Outage
from alignment.replay import replay, replay_batches
from alignment.replay_summary import ReplaySummary, summarize_replay
from alignment.services import FeatureService, Variant, constant
from alignment.snapshot import snapshot
from alignment.spine import PREDICTION_TIME, make_spine
from alignment.splits import Split, split_at, time_splits
from alignment.unit_costs import UnitCosts
from alignment.views import FeatureView
from alignment.whatif_delay import SHIFTS, DelayCost, delay_cost
from alignment.whatif_outage import OutageCost, outage_cost

__all__ = [
    "PREDICTION_TIME",
    "SHIFTS",
    "BuildPlan",
    "Dataset",
    "DelayCost",
    "Rebuilt",
    "build_dataset",
    "rebuild",
    "DelayReport",
    "DelayRule",
    "EmpiricalDelay",
    "Explanation",
    "Feature",
    "FeatureExplanation",
    "FeatureService",
    "FeatureView",
    "FixedDelay",
    "Label",
    "LabelMaturity",
    "LeakReport",
    "ObservationSource",
    "Observations",
    "Outage",
    "OutageCost",
    "PublishSchedule",
    "ShiftedDelay",
    "Split",
    "UnitCosts",
    "Variant",
    "arrival_age",
    "assess_delay",
    "compare_delays",
    "constant",
    "delay_cost",
    "draw_outages",
    "event_age",
    "fit_delay",
    "fit_fixed_delay",
    "fit_publish_schedule",
    "find_outages",
    "explain",
    "forecast",
    "issue_age",
    "label",
    "label_maturity",
    "lag",
    "latest",
    "leak_report",
    "make_spine",
    "outage_cost",
    "plan_dataset",
    "point_in_time_join",
    "ReplaySummary",
    "replay",
    "replay_batches",
    "sequence",
    "snapshot",
    "spark_errors",
    "split_at",
    "summarize_replay",
    "time_splits",
    "transform_arrivals",
    "window",
    "AddressError",
    "AggregateOverflowError",
    "AlignmentError",
    "AmbiguousRevisionsError",
    "ColumnTypeError",
    "DatasetError",
    "DefinitionError",
    "DelayFitError",
    "DuplicateColumnError",
    "DurationError",
    "EventAfterArrivalError",
    "FeatureError",
    "FrameError",
    "KeyTypeError",
    "LabelError",
    "MemoryLimitError",
    "MissingColumnError",
    "MissingFileError",
    "NaiveTimeError",
    "NullKeyError",
    "NullTimeError",
    "RevisionError",
    "ServiceError",
    "SpillError",
    "StoreError",
    "UnknownArrivalError",
    "UnknownEngineError",
    "ViewError",
]
