"""Leaves out what needs an optional package that is not installed; ``make test-all`` installs them all."""

from importlib.util import find_spec

collect_ignore_glob = []
if find_spec("torch") is None:
    collect_ignore_glob += ["src/kullback/torch/*", "tests/torch/*", "tests/torch_triton/*", "docs/torch.md"]
elif find_spec("triton") is None:
    collect_ignore_glob += ["src/kullback/torch/triton/*", "tests/torch_triton/*"]
