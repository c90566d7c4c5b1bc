"""Environment of every test, set before torch and transformers are imported: quiet, offline.

Without FRIEZE_TEST_GPU the tests see no GPU, so that they say the same on any machine; nor do they
see what a user keeps in the cache folder, as the rates of devices, by which renders are predicted.
"""

import os
import tempfile

for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}.items():
    os.environ.setdefault(_name, _value)
_cache = tempfile.TemporaryDirectory(prefix="frieze-cache-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache.name
if "FRIEZE_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
