"""Speed of mlx-lm on one model, as one JSON object on standard output.

    mlx_lm_bench.py MODEL [--random] [--dtype float32] [--prompt 128] [--output 64]
                          [--prefill 2048] [--batch 1 8 32] [--repeat 3] [--cpu]

MODEL is an MLX folder; with --random only its config.json is read and the weights
are random, quantized as the config says. Needs mlx-lm.

    decode_1    tokens/s of one request after its first token (generate_step)
    prefill     tokens/s of a prompt of --prefill tokens, first token included
    batch_N     tokens/s of N requests after their first tokens (BatchGenerator)
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm import utils
from mlx_lm.generate import BatchGenerator, generate_step


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--prefill", type=int, default=128)
    parser.add_argument("--batch", type=int, nargs="*", default=[])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    return parser.parse_args()


def load(args):
    config = json.loads((args.model / "config.json").read_text())
    if args.random:
        model_class, args_class = utils._get_classes(config)
        model = model_class(args_class.from_dict(config))
        model.set_dtype(getattr(mx, args.dtype))
        quantization = config.get("quantization")
        if quantization:
            nn.quantize(model, quantization["group_size"], quantization["bits"])
    else:
        model, _ = utils.load_model(args.model)
        model.set_dtype(getattr(mx, args.dtype))
    # One by one: all at once would hold every unquantized layer.
    for _, weight in tree_flatten(model.parameters()):
        mx.eval(weight)
    return model, config["vocab_size"]


def prompts(count, length, vocab_size):
    return mx.random.randint(0, vocab_size, (count, length)).tolist()


def one_request(model, vocab_size, prompt_len, output_len):
    """Prefill tokens/s and decode tokens/s."""
    prompt = mx.array(prompts(1, prompt_len, vocab_size)[0])
    mx.eval(prompt)
    times = [time.perf_counter()]
    for _ in generate_step(prompt, model, max_tokens=output_len):
        times.append(time.perf_counter())
    start, first, end = times[0], times[1], times[-1]
    decode = (len(times) - 2) / (end - first) if len(times) > 2 else 0.0
    return prompt_len / (first - start), decode


def batch(model, vocab_size, size, prompt_len, output_len):
    """Decode tokens/s of all requests together."""
    generator = BatchGenerator(
        model, max_tokens=output_len, completion_batch_size=size, prefill_batch_size=size
    )
    generator.insert(prompts(size, prompt_len, vocab_size))
    seen, count, start = set(), 0, None
    while responses := generator.next_generated():
        if start is not None:
            count += len(responses)
        seen.update(response.uid for response in responses)
        if start is None and len(seen) == size:
            start = time.perf_counter()
    end = time.perf_counter()
    generator.close()
    return count / (end - start)


def median_after_warm_up(repeat, measure):
    return statistics.median([measure() for _ in range(repeat + 1)][1:])


def main():
    args = arguments()
    if args.cpu:
        mx.set_default_device(mx.cpu)
    model, vocab_size = load(args)
    one_request(model, vocab_size, 8, 3)
    results = {
        "decode_1": statistics.median(
            one_request(model, vocab_size, args.prompt, args.output)[1] for _ in range(args.repeat)
        ),
        "prefill": median_after_warm_up(
            args.repeat, lambda: one_request(model, vocab_size, args.prefill, 2)[0]
        ),
    }
    for size in args.batch:
        results[f"batch_{size}"] = median_after_warm_up(
            args.repeat, lambda: batch(model, vocab_size, size, args.prompt, args.output)
        )
    print(json.dumps(results))


main()
