"""Several processes, one run: ranks, their agreement, data parallelism."""

from functrain.distributed.mesh import Sizes as Sizes
from functrain.distributed.mesh import sizes_of as sizes_of
from functrain.distributed.peers import ProcessPeers as ProcessPeers
from functrain.distributed.replicas import part_of as part_of
from functrain.distributed.replicas import replicate as replicate
from functrain.distributed.replicas import sum_over_ranks as sum_over_ranks
from functrain.distributed.replicas import totals_over_ranks as totals_over_ranks
from functrain.distributed.sharding import STRATEGIES as STRATEGIES
from functrain.distributed.sharding import gather_state as gather_state
from functrain.distributed.sharding import shard as shard
from functrain.distributed.sharding import unshard as unshard
from functrain.distributed.world import World as World
from functrain.distributed.world import all_ranks as all_ranks
from functrain.distributed.world import any_rank as any_rank
from functrain.distributed.world import barrier as barrier
from functrain.distributed.world import current_world as current_world
from functrain.distributed.world import start as start
