"""Any environment made non-stationary: `NonStationary` for one, `NonStationaryVector` for many.

Both keep this contract:

* A change that is due after n steps comes before the next step, or before the next reset where an
  episode ended with the n-th. The observation that a step returns belongs to the task in which
  the step was taken.
* ``info["task"]`` is the index of the task, from 0, and ``info["task_changed"]`` says whether it
  changed since the call before. Of stacked wrappers, both are about all the changes together.
* The clock of the schedule counts real steps: in a vector environment the step that only resets
  a lane does not count.
* ``reset(seed=...)`` begins everything anew, the sequence of tasks and its clock included; a
  reset without a seed begins an episode and nothing else.
"""

from clrl.envs.nonstationary.apart import taken_apart
from clrl.envs.nonstationary.single import NonStationary
from clrl.envs.nonstationary.vector import NonStationaryVector

__all__ = ["NonStationary", "NonStationaryVector", "taken_apart"]
