"""Loads SGLang's test kits by file, without importing SGLang, and runs their mixins against a server.

    python run_kits.py BASE_URL basic_api_contract_kit spec_server_kits:SpecLogprobKit ...

After a colon: one mixin of the kit. Some kits import SGLang themselves, so they need a Python that has its requirements.
"""

import importlib.util
import sys
import unittest
from pathlib import Path

import openai
import requests


class Process:
    """Some kits look whether the server's process is alive; it is not ours to hold, so its health stands for it."""

    def __init__(self, base_url):
        self.base_url = base_url

    def poll(self):
        return None if requests.get(f"{self.base_url}/health", timeout=30).ok else 1


def mixins(kit, wanted):
    package = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(kit, package / "test" / "kits" / f"{kit}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == kit]
    if wanted:
        return [mixin for mixin in own if mixin.__name__ == wanted]
    return [mixin for mixin in own if mixin.__name__.endswith("Mixin")]


def main(base_url, kits):
    model = requests.get(f"{base_url}/v1/models", timeout=10).json()["data"][0]["id"]
    facts = {"base_url": base_url, "served_model_name": model, "model": model, "api_key": "none",
             "process": Process(base_url), "client": openai.OpenAI(base_url=f"{base_url}/v1", api_key="none")}
    suite = unittest.TestSuite()
    for kit in kits:
        name, _, wanted = kit.partition(":")
        for mixin in mixins(name, wanted):
            case = type(f"{name}.{mixin.__name__}", (mixin, unittest.TestCase), facts)
            suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    result = unittest.TextTestRunner(verbosity=2, buffer=True).run(suite)
    if result.testsRun == 0:
        sys.exit("no tests found")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), sys.argv[2:])
