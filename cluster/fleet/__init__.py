"""Ranks under one driver: threads, this process, and what any fleet can do."""

from .cancellation import WaitCancelledError as WaitCancelledError
from .cancellation import cancelled_by as cancelled_by
from .failures import FleetError as FleetError
from .failures import WorkerLostError as WorkerLostError
from .failures import root_cause as root_cause
from .fleet import POLL_SECONDS as POLL_SECONDS
from .fleet import Call as Call
from .fleet import Fleet as Fleet
from .fleet import T as T
from .resizing import Bounds as Bounds
from .resizing import next_size as next_size
from .solo_fleet import SoloFleet as SoloFleet
from .thread_fleet import LocalFleet as LocalFleet
from .worker_host import FunctionWorker as FunctionWorker
from .worker_host import RankLocation as RankLocation
from .worker_host import Report as Report
from .worker_host import WorkerHost as WorkerHost
from .worker_host import failure as failure
