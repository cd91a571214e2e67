"""clrl: a benchmark suite for continual reinforcement learning."""

import os

__version__ = "0.1.0"

# MKL may choose another order of summation when the same matrices lie at other addresses,
# and then a member's bits would depend on who sits beside it. Strict mode forbids that.
# MKL reads the variable at its first call, so it is set before anything loads torch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# A process that has asked CUDA for its devices can have no children that use them, and workers
# fork. With this torch asks the driver's management library (NVML) whether there are any.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
