"""Puts the module compiled with sanitizers in the place of the installed one; see run.py beside this file.

Python imports a module of this name at its start, so that processes which tests start get the same module.
"""

import importlib.util
import os
import sys

NAME = "kullback.kernels._native"


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, os.environ["KULLBACK_SANITIZED"]) if name == NAME else None


sys.meta_path.insert(0, _Finder)
