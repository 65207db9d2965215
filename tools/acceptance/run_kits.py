"""Loads SGLang's test kits by file, without importing SGLang, and runs their mixins against a server.

    python run_kits.py BASE_URL basic_api_contract_kit spec_server_kits:SpecLogprobKit ...

After a colon: one mixin of the kit. Some kits import SGLang themselves, so they need a Python that has its requirements.

streaming_session_kit needs a server with `--enable-streaming-session --page-size 1`; its StreamingSessionKitMixin a
context of more than 100000 tokens (`--json-model-override-args '{"max_position_embeddings": 131072}'
--max-total-tokens 20000`), its AbortLeakReproKitMixin one of 512 (`--context-length 512`). It aborts what a small model
has ended long ago, so its requests ignore EOS.
"""

import importlib.util
import sys
import types
import unittest
from pathlib import Path

import openai
import requests

PACKAGE = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])


class Anything(types.ModuleType):
    """A module that has every name: what fixtures import to launch servers with."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class ServersTokenizer:
    """Encodes as the server does."""

    def __init__(self, base_url):
        self.base_url = base_url
        ends = self.encode("")
        self.bos_token_id = ends[0] if ends else None

    def encode(self, text):
        return requests.post(f"{self.base_url}/tokenize", json={"prompt": text}, timeout=30).json()["tokens"]


# What the kits leave to those who run them: for a context of 8192 tokens and a CPU.
KNOBS = {"abort_all_max_new_tokens": 6000, "pause_num_requests": 8, "pause_max_new_tokens": 96, "pause_duration": 3,
         "pause_ignore_eos": True}


class Process:
    """Some kits look whether the server's process is alive; it is not ours to hold, so its health stands for it."""

    def __init__(self, base_url):
        self.base_url = base_url

    def poll(self):
        return None if requests.get(f"{self.base_url}/health", timeout=30).ok else 1


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_session_fixture():
    """Constants and coroutines that a kit uses; the fixture's servers are not launched."""
    for name in ("srt", "srt.environ", "srt.utils", "srt.utils.hf_transformers_utils", "test", "test.test_utils",
                 "test.server_fixtures"):
        sys.modules.setdefault(f"sglang.{name}", Anything(f"sglang.{name}"))
    name = "streaming_session_fixture"
    module = load(name, PACKAGE / "test" / "server_fixtures" / f"{name}.py")
    sys.modules[f"sglang.test.server_fixtures.{name}"] = module


class EndlessRequests:
    """`requests` whose completions do not end by themselves."""

    get = staticmethod(requests.get)

    @staticmethod
    def post(url, json=None, **options):
        params = (json or {}).get("sampling_params")
        if params:
            json = json | {"sampling_params": params | {"ignore_eos": True}}
        return requests.post(url, json=json, **options)


def mixins(kit, wanted):
    if kit == "streaming_session_kit":
        load_session_fixture()
    module = load(kit, PACKAGE / "test" / "kits" / f"{kit}.py")
    if kit == "streaming_session_kit":
        module.requests = EndlessRequests
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == kit]
    if wanted:
        return [mixin for mixin in own if mixin.__name__ == wanted]
    return [mixin for mixin in own if mixin.__name__.endswith("Mixin")]


def main(base_url, kits):
    model = requests.get(f"{base_url}/v1/models", timeout=10).json()["data"][0]["id"]
    facts = {**KNOBS, "base_url": base_url, "served_model_name": model, "model": model, "api_key": "none",
             "process": Process(base_url), "tokenizer": ServersTokenizer(base_url),
             "client": openai.OpenAI(base_url=f"{base_url}/v1", api_key="none")}
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
