"""Loads SGLang's test kits by file, without importing SGLang, and runs their mixins against a server.

    python run_kits.py BASE_URL basic_api_contract_kit streaming_session_kit:AbortLeakReproKitMixin ...

Some need a server with options: streaming_session_kit `--enable-streaming-session --page-size 1`, its
StreamingSessionKitMixin a context of more than 100000 tokens (`--json-model-override-args
'{"max_position_embeddings": 131072}'`), its AbortLeakReproKitMixin `--context-length 512`.
"""

import importlib.util
import sys
import types
import unittest
from pathlib import Path

import requests

PACKAGE = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Anything(types.ModuleType):
    """A module that has every name: what fixtures import to launch servers with."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def load_fixture(name):
    """A fixture whose constants and coroutines a kit uses; its servers are not launched."""
    for module in ("srt", "srt.environ", "srt.utils", "srt.utils.hf_transformers_utils", "test", "test.test_utils",
                   "test.server_fixtures"):
        sys.modules.setdefault(f"sglang.{module}", Anything(f"sglang.{module}"))
    load(f"sglang.test.server_fixtures.{name}", PACKAGE / "test" / "server_fixtures" / f"{name}.py")


class ServersTokenizer:
    """Encodes as the server does."""

    def __init__(self, base_url):
        self.base_url = base_url
        ends = self.encode("")
        self.bos_token_id = ends[0] if ends else None

    def encode(self, text):
        return requests.post(f"{self.base_url}/tokenize", json={"prompt": text}, timeout=30).json()["tokens"]


class Process:
    """Stands for the server's process, which is not ours to hold here: it runs as long as it answers."""

    def __init__(self, base_url):
        self.base_url = base_url

    def poll(self):
        return None if requests.get(f"{self.base_url}/health", timeout=30).status_code == 200 else 1


def mixins(kit):
    name, _, only = kit.partition(":")
    if name == "streaming_session_kit":
        load_fixture("streaming_session_fixture")
    module = load(name, PACKAGE / "test" / "kits" / f"{name}.py")
    found = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name]
    return [mixin for mixin in found if mixin.__name__.endswith("Mixin") and only in ("", mixin.__name__)]


def main(base_url, kits):
    model = requests.get(f"{base_url}/v1/models", timeout=10).json()["data"][0]["id"]
    facts = {"base_url": base_url, "served_model_name": model, "model": model, "process": Process(base_url),
             "tokenizer": ServersTokenizer(base_url)}
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
