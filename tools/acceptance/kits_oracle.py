"""A stand-in for the server that answers with transformers' greedy tokens: shows which of the kits' assertions are the model's.

    python kits_oracle.py FOLDER PORT                  # needs torch, transformers and xgrammar
    kits.sh http://127.0.0.1:PORT basic_decode_correctness_kit basic_scheduler_stress_kit json_constrained_kit matched_stop_kit

FOLDER is a folder of Hugging Face's format; for SmolLM2, `plain` of tools/oracle/smollm2_folder.py, whose weights are those
of the server's default model. An assertion that fails here too fails because of what the model says. Whole answers and
one-piece streams, text prompts, greedy; `stop` is all it knows of stopping early. JSON schemas are followed by xgrammar, as
SGLang's are.
"""

import http.server
import json
import sys
import threading

import torch
import xgrammar
from transformers import AutoModelForCausalLM, AutoTokenizer
from xgrammar.contrib.hf import LogitsProcessor

lock = threading.Lock()


class Oracle:
    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        vocabulary = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=self.model.config.vocab_size)
        self.compiler = xgrammar.GrammarCompiler(vocabulary)

    def answer(self, prompt, max_new_tokens, stop=None, json_schema=None):
        """Text, finish reason and what stopped it."""
        stops = [stop] if isinstance(stop, str) else stop or []
        ids = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        options = {"do_sample": False, "max_new_tokens": max_new_tokens, "pad_token_id": self.tokenizer.eos_token_id}
        if stops:
            options |= {"stop_strings": stops, "tokenizer": self.tokenizer}
        if json_schema:
            options["logits_processor"] = [LogitsProcessor(self.compiler.compile_json_schema(json_schema))]
        with lock, torch.inference_mode():
            out = self.model.generate(**ids, **options)[0, ids["input_ids"].shape[1] :].tolist()
        text = self.tokenizer.decode(out, skip_special_tokens=True)
        found = [(text.index(string), string) for string in stops if string in text]
        if found:
            at, string = min(found)
            return text[:at], "stop", string
        if out and out[-1] == self.tokenizer.eos_token_id:
            return text, "stop", out[-1]
        return text, "length", None

    def chat(self, messages):
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


class Handler(http.server.BaseHTTPRequestHandler):
    oracle = None

    def do_GET(self):
        self.send({"data": [{"id": "oracle"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.send({"tokens": self.oracle.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]})
        if self.path == "/generate":
            params = body["sampling_params"]
            wanted = (params["max_new_tokens"], params.get("stop"), params.get("json_schema"))
            text, reason, matched = self.oracle.answer(body["text"], *wanted)
            return self.send({"text": text, "meta_info": {"finish_reason": {"type": reason}}}, body.get("stream"))
        if unknown := {"stop_regex", "response_format"} & body.keys():
            return self.send_error(400, f"not known here: {unknown}")
        is_chat = self.path == "/v1/chat/completions"
        prompt = self.oracle.chat(body["messages"]) if is_chat else body["prompt"]
        text, reason, matched = self.oracle.answer(prompt, body["max_tokens"], body.get("stop"))
        said = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
        self.send({"choices": [{"index": 0, **said, "finish_reason": reason, "matched_stop": matched}], "usage": {}})

    def send(self, answer, is_stream=False):
        text = json.dumps(answer)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.end_headers()
        self.wfile.write((f"data: {text}\n\ndata: [DONE]\n\n" if is_stream else text).encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    Handler.oracle = Oracle(sys.argv[1])
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
