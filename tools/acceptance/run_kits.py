"""Loads SGLang's test kits by file, without importing SGLang, and runs their mixins against a server.

    python run_kits.py BASE_URL basic_api_contract_kit ...
"""

import importlib.util
import sys
import unittest
from pathlib import Path

import requests


def mixins(kit):
    package = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(kit, package / "test" / "kits" / f"{kit}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == kit and v.__name__.endswith("Mixin")]


def main(base_url, kits):
    model = requests.get(f"{base_url}/v1/models", timeout=10).json()["data"][0]["id"]
    # Some kits look at the server's process; the server is not ours to hold here.
    facts = {"base_url": base_url, "served_model_name": model, "model": model, "process": None}
    suite = unittest.TestSuite()
    for kit in kits:
        for mixin in mixins(kit):
            case = type(f"{kit}.{mixin.__name__}", (mixin, unittest.TestCase), facts)
            suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if result.testsRun == 0:
        sys.exit("no tests found")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2:])
