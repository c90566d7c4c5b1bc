"""How ranks talk: one communicator, three kinds of world."""

from .collectives import Comm as Comm
from .mesh_axes import AxisComms as AxisComms
from .mesh_axes import axis_comms as axis_comms
from .messages import MOST_BYTES as MOST_BYTES
from .messages import CommError as CommError
from .messages import Like as Like
from .messages import Pending as Pending
from .messages import RankLostError as RankLostError
from .messages import from_bytes as from_bytes
from .messages import in_bytes as in_bytes
from .phantom_world import phantom as phantom
from .rank_threads import line_up as line_up
from .rank_threads import run_threads as run_threads
from .rank_threads import threads as threads
from .rendezvous import RemoteStore as RemoteStore
from .selection import select as select
from .worlds import distributed as distributed
from .worlds import solo as solo
