"""Goldens of tiny checkpoints by mlx-lm in f32: every family of the registry; for Llama every kind of rope, tied and
untied heads, biases, windows, quantized and plain layers.

    python tiny_models.py [family ...]

writes crates/models/testdata/<family>/<case>.json: the config, the logits after the prompt, 32 greedy tokens and the
lead of each over the runner-up. Run with mlx-lm 0.32.2 on mlx 0.32.4.

Weights are not stored: both sides compute them from the tensor's name (`tensor` below and `tests/it/tiny.rs` in
crates/models), and quantize them with MLX.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

OUT = Path(__file__).resolve().parents[2] / "crates/models/testdata"
NUM_TOKENS = 32
PROMPT = [(i * 37 + 11) % 256 for i in range(24)]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

LLAMA_CASES = {
    "plain": {"num_key_value_heads": 4},
    "tied": {"tie_word_embeddings": True},
    "gqa": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16},
    "bias": {"attention_bias": True, "mlp_bias": True},
    "rope-linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "rope-dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 32},
    "rope-llama3": {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
    "rope-yarn": {"rope_scaling": YARN},
    "rope-traditional": {"rope_traditional": True},
    "mistral-window": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "num_hidden_layers": 3,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "q4-g32": {"quantization": {"group_size": 32, "bits": 4}},
    "q4-g64-tied": {"tie_word_embeddings": True, "quantization": {"group_size": 64, "bits": 4}},
    "mixed-bits": {
        "quantization": {
            "group_size": 64,
            "bits": 4,
            "model.embed_tokens": {"group_size": 32, "bits": 8},
            "model.layers.0.mlp.down_proj": {"group_size": 64, "bits": 6},
            "model.layers.1.self_attn.o_proj": False,
            "lm_head": False,
        }
    },
}

QWEN3 = LLAMA | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
}
QWEN3_CASES = {
    "qwen3": {},
    "qwen3-tied-q4": {"tie_word_embeddings": True, "quantization": {"group_size": 64, "bits": 4}},
}

QWEN3_MOE = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 64,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
ROUTERS = {f"model.layers.{layer}.mlp.gate": {"group_size": 64, "bits": 8} for layer in range(3)}
QWEN3_MOE_CASES = {
    "qwen3-moe": {},
    "qwen3-moe-mixed-layers": {"mlp_only_layers": [1], "norm_topk_prob": False},
    "qwen3-moe-stacked-q4": {"quantization": {"group_size": 64, "bits": 4} | ROUTERS},
}

MIXTRAL = LLAMA | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "rope_theta": 1000000.0,
    "sliding_window": None,
}
MIXTRAL_CASES = {
    "mixtral": {},
    "mixtral-q4": {"quantization": {"group_size": 64, "bits": 4}},
}

QWEN2 = LLAMA | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "qkv_bias": True,
    "use_sliding_window": False,
    "sliding_window": 8,
    "max_window_layers": 1,
}
QWEN2_CASES = {
    "qwen2": {},
    "qwen2-tied-q4": {"tie_word_embeddings": True, "quantization": {"group_size": 64, "bits": 4}},
}

QWEN2_MOE = QWEN2 | {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "num_experts": 6,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 192,
    "decoder_sparse_step": 1,
    "norm_topk_prob": False,
}
QWEN2_MOE_CASES = {
    "qwen2-moe": {},
    "qwen2-moe-q4": {"quantization": {"group_size": 64, "bits": 4}},
}

SEED_OSS = LLAMA | {
    "architectures": ["SeedOssForCausalLM"],
    "model_type": "seed_oss",
    "head_dim": 32,
    "attention_bias": True,
    "attention_out_bias": False,
}
SEED_OSS_CASES = {
    "seed-oss": {},
    "seed-oss-q4": {"attention_bias": False, "attention_out_bias": True, "quantization": {"group_size": 64, "bits": 4}},
}

SMOLLM3 = LLAMA | {
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000.0,
    "tie_word_embeddings": True,
    "no_rope_layer_interval": 4,
    "sliding_window": None,
    "use_sliding_window": False,
}
SMOLLM3_CASES = {
    "smollm3": {},
    "smollm3-listed-q4": {
        "num_hidden_layers": 3,
        "no_rope_layers": [0, 1, 0],
        "tie_word_embeddings": False,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

ERNIE4_5 = LLAMA | {
    "architectures": ["Ernie4_5ForCausalLM"],
    "model_type": "ernie4_5",
    "head_dim": 32,
    "rope_theta": 500000.0,
    "use_bias": False,
}
ERNIE4_5_CASES = {
    "ernie4_5": {},
    "ernie4_5-bias-q4": {
        "architectures": ["Ernie4_5_ForCausalLM"],
        "num_hidden_layers": 3,
        "use_bias": True,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

GRANITE = LLAMA | {
    "architectures": ["GraniteForCausalLM"],
    "model_type": "granite",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_multiplier": 0.05,
    "embedding_multiplier": 1.7,
    "residual_multiplier": 0.6,
    "logits_scaling": 3.0,
}
GRANITE_CASES = {
    "granite": {},
    "granite-bias-q4": {
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

GRANITEMOE = {key: value for key, value in GRANITE.items() if key != "mlp_bias"} | {
    "architectures": ["GraniteMoeForCausalLM"],
    "model_type": "granitemoe",
    "intermediate_size": 64,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
}
GRANITEMOE_SMALL = ("block_sparse_moe.router.layer", "block_sparse_moe.switch_mlp.down_proj", "self_attn.o_proj")
GRANITEMOE_8BIT = ["lm_head", *(f"model.layers.{n}.{name}" for n in range(2) for name in GRANITEMOE_SMALL)]
GRANITEMOE_CASES = {
    "granitemoe": {},
    "granitemoe-bias-q4": {
        "attention_bias": True,
        "quantization": {"group_size": 64, "bits": 4}
        | {name: {"group_size": 64, "bits": 8} for name in GRANITEMOE_8BIT},
    },
}
GRANITE4 = GRANITEMOE | {
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "model_type": "granitemoehybrid",
    "num_hidden_layers": 3,
    "shared_intermediate_size": 128,
    "layer_types": ["mamba", "attention", "mamba"],
    "position_embedding_type": "nope",
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_n_groups": 1,
    "mamba_proj_bias": False,
    "mamba_conv_bias": True,
    "time_step_limit": [0.0, {"__float__": "Infinity"}],
}
GRANITE4_ROUTERS = {f"model.layers.{n}.block_sparse_moe.router.layer": {"group_size": 64, "bits": 8} for n in range(3)}
GRANITE4_DENSE = {
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "intermediate_size": 128,
    "shared_intermediate_size": 128,
    "position_embedding_type": "rope",
}
GRANITE4_CASES = {
    "granite4": {},
    "granite4-q4": {"quantization": {"group_size": 64, "bits": 4} | GRANITE4_ROUTERS},
    "granite4-dense": GRANITE4_DENSE
    | {
        "layer_types": ["attention", "mamba", "mamba"],
        "mamba_n_groups": 2,
        "mamba_d_conv": 3,
        "mamba_proj_bias": True,
        "mamba_conv_bias": False,
        "time_step_limit": [0.6, 0.8],
    },
    "granite4-dense-q4": GRANITE4_DENSE
    | {
        "num_hidden_layers": 2,
        "layer_types": ["attention", "attention"],
        "quantization": {"group_size": 64, "bits": 4},
    },
}

OLMO2 = LLAMA | {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
    "attention_bias": False,
}
OLMO2_CASES = {
    "olmo2": {},
    "olmo2-tied-q4": {"tie_word_embeddings": True, "quantization": {"group_size": 64, "bits": 4}},
}

OLMO3 = OLMO2 | {
    "architectures": ["Olmo3ForCausalLM"],
    "model_type": "olmo3",
    "num_hidden_layers": 4,
    "sliding_window": 8,
}
OLMO3_CASES = {
    "olmo3": {},
    "olmo3-yarn-q4": {
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "rope_scaling": YARN,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

OLMOE = LLAMA | {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "intermediate_size": 64,
    "attention_bias": False,
    "clip_qkv": None,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
}
OLMOE_CASES = {
    "olmoe": {},
    "olmoe-bias-q4": {
        "attention_bias": True,
        "norm_topk_prob": True,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

GLM4 = LLAMA | {
    "architectures": ["Glm4ForCausalLM"],
    "model_type": "glm4",
    "head_dim": 32,
    "attention_bias": True,
    "partial_rotary_factor": 0.5,
}
GLM4_CASES = {
    "glm4": {},
    "glm4-q4": {"attention_bias": False, "quantization": {"group_size": 64, "bits": 4}},
}

PHI3 = LLAMA | {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "original_max_position_embeddings": 512,
    "sliding_window": 2047,
}
LONGROPE = {
    "type": "longrope",
    "short_factor": [1.0 + 0.01 * i for i in range(6)],
    "long_factor": [1.0 + 0.75 * i for i in range(6)],
}
PHI3_CASES = {
    "phi3": {},
    "phi3-longrope-q4": {
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 16,
        "rope_scaling": LONGROPE,
        "tie_word_embeddings": True,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

COHERE2 = LLAMA | {
    "architectures": ["Cohere2ForCausalLM"],
    "model_type": "cohere2",
    "num_hidden_layers": 4,
    "head_dim": 16,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.25,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "tie_word_embeddings": True,
}
COHERE2_CASES = {
    "cohere2": {},
    "cohere2-bias-q4": {"attention_bias": True, "quantization": {"group_size": 64, "bits": 4}},
}

DEEPSEEK_V2 = LLAMA | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "q_lora_rank": None,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1},
}
PLAIN_ROUTERS = {f"model.layers.{layer}.mlp.gate": False for layer in range(3)}
DEEPSEEK_V2_CASES = {
    "deepseek-v2-lite": {},
    "deepseek-v2-lite-q4": {"quantization": {"group_size": 64, "bits": 4} | PLAIN_ROUTERS},
    "deepseek-v2-groups": {
        "q_lora_rank": 64,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 16.0,
        "moe_layer_freq": 2,
        "rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.5},
    },
    "deepseek-v2-groups-q4": {
        "q_lora_rank": 64,
        "topk_method": "group_limited_greedy",
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": None,
        "quantization": {"group_size": 32, "bits": 4} | PLAIN_ROUTERS,
    },
}

# The quantized cases are as mlx-lm writes them: kv_b_proj in two, not packed here since heads are narrow.
DEEPSEEK_V3 = DEEPSEEK_V2 | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "q_lora_rank": 64,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
}
SPLIT = {f"model.layers.{n}.self_attn.{name}": False for n in range(3) for name in ("embed_q", "unembed_out")}
DEEPSEEK_V3_CASES = {
    "deepseek-v3": {},
    "deepseek-v3-one-group": {"n_group": 1, "topk_group": 1, "rope_scaling": None, "n_shared_experts": 1},
    "deepseek-v3-q4": {"quantization": {"group_size": 64, "bits": 4} | PLAIN_ROUTERS | SPLIT},
}

GLM4_MOE_LITE = DEEPSEEK_V3 | {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "rms_norm_eps": 1e-3,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.8,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
}
GLM4_MOE_LITE_CASES = {
    "glm4-moe-lite": {},
    "glm4-moe-lite-q4": {"quantization": {"group_size": 64, "bits": 4} | PLAIN_ROUTERS | SPLIT},
}

GLM4_MOE = {key: value for key, value in DEEPSEEK_V3.items() if key not in ("kv_lora_rank", "q_lora_rank")} | {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "num_key_value_heads": 2,
    "head_dim": 32,
    "attention_bias": True,
    "use_qk_norm": True,
    "partial_rotary_factor": 0.5,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "rope_scaling": None,
}
GLM4_MOE_CASES = {
    "glm4-moe": {},
    "glm4-moe-q4": {"use_qk_norm": False, "quantization": {"group_size": 64, "bits": 4} | PLAIN_ROUTERS},
}

BAILING_MOE = {key: value for key, value in LLAMA.items() if key != "head_dim"} | {
    "architectures": ["BailingMoeV2ForCausalLM"],
    "model_type": "bailing_moe",
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "rope_theta": 600000.0,
    "partial_rotary_factor": 0.5,
    "use_bias": False,
    "use_qkv_bias": False,
    "use_qk_norm": True,
    "norm_head": False,
    "norm_softmax": False,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "num_shared_experts": 1,
    "moe_intermediate_size": 64,
    "moe_shared_expert_intermediate_size": 128,
    "moe_router_enable_expert_bias": True,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "score_function": "sigmoid",
    "n_group": 4,
    "topk_group": 2,
}
BAILING_ROUTERS = {f"model.layers.{n}.mlp.gate.gate_proj": {"group_size": 64, "bits": 8} for n in range(3)}
BAILING_MOE_CASES = {
    "bailing-moe": {},
    "bailing-moe-softmax": {
        "architectures": ["BailingMoeForCausalLM"],
        "use_qkv_bias": True,
        "use_qk_norm": False,
        "rotary_dim": 12,
        "num_shared_experts": 0,
        "moe_router_enable_expert_bias": False,
        "first_k_dense_replace": 0,
        "routed_scaling_factor": 1.0,
        "score_function": "softmax",
        "n_group": 1,
        "topk_group": 1,
        "tie_word_embeddings": True,
    },
    "bailing-moe-q4": {"quantization": {"group_size": 64, "bits": 4} | BAILING_ROUTERS},
}

MINISTRAL3 = {key: value for key, value in LLAMA.items() if key != "rope_theta"} | {
    "architectures": ["Ministral3ForCausalLM"],
    "model_type": "ministral3",
    "head_dim": 16,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16,
        "llama_4_scaling_beta": 0.1,
    },
}
MINISTRAL3_CASES = {
    "ministral3": {},
    "ministral3-q4": {"quantization": {"group_size": 64, "bits": 4}},
}
MISTRAL3 = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3"}
MISTRAL3_CASES = {
    "mistral3": {"text_config": MINISTRAL3},
    "mistral3-llama-q4": {
        "text_config": LLAMA | {"model_type": "mistral", "head_dim": 16},
        "quantization": {"group_size": 64, "bits": 4},
    },
}

GEMMA = LLAMA | {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "head_dim": 32,
    # mlx-lm knows this one only, whatever the config says.
    "hidden_activation": "gelu",
    "intermediate_size": 512,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
GEMMA_CASES = {
    "gemma": {},
    "gemma-q4": {"num_key_value_heads": 1, "quantization": {"group_size": 64, "bits": 4}},
}

GEMMA2 = LLAMA | {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "num_hidden_layers": 4,
    "head_dim": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 50.0,
    "query_pre_attn_scalar": 24.0,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
GEMMA2_CASES = {
    "gemma2": {},
    "gemma2-q4": {"quantization": {"group_size": 64, "bits": 4}},
}

GEMMA3_TEXT = LLAMA | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 4,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 24.0,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "sliding_window": 8,
    "sliding_window_pattern": 3,
    "tie_word_embeddings": True,
}
GEMMA3_TEXT_CASES = {
    "gemma3": {},
    "gemma3-head-q4": {
        "hidden_size": 128,
        "tie_word_embeddings": False,
        "quantization": {"group_size": 64, "bits": 4},
    },
}

GEMMA3 = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "vocab_size": 256,
    "text_config": GEMMA3_TEXT | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "tie_word_embeddings": False},
}
GEMMA3_CASES = {
    "gemma3-nested": {},
    "gemma3-nested-q4": {"quantization": {"group_size": 64, "bits": 4}},
}

MOE_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "decoder_sparse_step",
    "mlp_only_layers",
    "norm_topk_prob",
)
QWEN3_NEXT = QWEN3_MOE | {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "num_hidden_layers": 4,
    "full_attention_interval": 4,
    "shared_expert_intermediate_size": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "partial_rotary_factor": 0.5,
}
LFM2 = {key: value for key, value in LLAMA.items() if key != "rms_norm_eps"} | {
    "architectures": ["Lfm2ForCausalLM"],
    "model_type": "lfm2",
    "num_hidden_layers": 3,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 64,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "layer_types": ["conv", "full_attention", "conv"],
    "tie_word_embeddings": True,
}
LFM2_CASES = {
    "lfm2": {},
    "lfm2-bias": {"conv_bias": True, "block_auto_adjust_ff_dim": True, "block_ff_dim": 150, "full_attn_idxs": [2]},
    "lfm2-q4": {"quantization": {"group_size": 64, "bits": 4}},
}

LFM2_MOE = LFM2 | {
    "architectures": ["Lfm2MoeForCausalLM"],
    "model_type": "lfm2_moe",
    "num_dense_layers": 1,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "use_expert_bias": True,
    "routed_scaling_factor": 2.5,
}
LFM2_ROUTERS = {f"model.layers.{layer}.feed_forward.gate": {"group_size": 64, "bits": 8} for layer in range(3)}
LFM2_MOE_CASES = {
    "lfm2-moe": {},
    "lfm2-moe-unbiased": {
        "num_dense_layers": 0,
        "norm_topk_prob": False,
        "use_expert_bias": False,
        "conv_bias": True,
        "full_attn_idxs": [2],
    },
    "lfm2-moe-q4": {"num_dense_layers": 2, "quantization": {"group_size": 64, "bits": 4} | LFM2_ROUTERS},
}

MINIMAX = LLAMA | {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "intermediate_size": 64,
    "head_dim": 32,
    "rotary_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000.0,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "shared_intermediate_size": 0,
    "scoring_func": "sigmoid",
    "use_routing_bias": True,
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
    "attn_type_list": [1, 1],
}
MINIMAX_ROUTERS = {f"model.layers.{layer}.block_sparse_moe.gate": {"group_size": 64, "bits": 8} for layer in range(2)}
MINIMAX_CASES = {
    "minimax": {},
    "minimax-plain-heads": {"model_type": "minimax", "use_qk_norm": False, "head_dim": None},
    "minimax-q4": {"quantization": {"group_size": 64, "bits": 4} | MINIMAX_ROUTERS},
}

QWEN3_NEXT_CASES = {
    "qwen3-next": {"mlp_only_layers": [1]},
    "qwen3-next-stacked-q4": {"full_attention_interval": 2, "quantization": {"group_size": 64, "bits": 4}},
}

QWEN2_VL = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl"}
QWEN2_5_VL_TEXT = QWEN2 | {
    "model_type": "qwen2_5_vl_text",
    "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [2, 3, 3]},
}
QWEN2_VL_CASES = {
    "qwen2-vl": QWEN2 | {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}} | QWEN2_VL,
    "qwen2-5-vl-q4": {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "text_config": QWEN2_5_VL_TEXT,
        "quantization": {"group_size": 64, "bits": 4},
    },
}
QWEN3_VL_TEXT = QWEN3 | {
    "model_type": "qwen3_vl_text",
    "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [6, 5, 5]},
}
QWEN3_VL = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "tie_word_embeddings": False,
    "text_config": QWEN3_VL_TEXT,
}
QWEN3_VL_CASES = {
    "qwen3-vl": {},
    "qwen3-vl-tied-q4": {
        "tie_word_embeddings": True,
        "text_config": QWEN3_VL_TEXT | {"tie_word_embeddings": True},
        "quantization": {"group_size": 64, "bits": 4},
    },
}

QWEN3_5_TEXT = {key: value for key, value in QWEN3_NEXT.items() if key not in MOE_FIELDS and key != "rope_theta"} | {
    "model_type": "qwen3_5_text",
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    },
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}
del QWEN3_5_TEXT["partial_rotary_factor"]
QWEN3_5 = {
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "model_type": "qwen3_5",
    "tie_word_embeddings": False,
    "text_config": QWEN3_5_TEXT,
}
# Text models alone, without the whole around them.
QWEN3_5_ALONE = QWEN3_5_TEXT | {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5", "text_config": None}
QWEN3_5_CASES = {
    "qwen3-5": {},
    "qwen3-5-alone": QWEN3_5_ALONE,
    "qwen3-5-tied-q4": {
        "text_config": QWEN3_5_TEXT | {"tie_word_embeddings": True},
        "tie_word_embeddings": True,
        "quantization": {"group_size": 64, "bits": 4},
    },
}
QWEN3_5_MOE = {
    "architectures": ["Qwen3_5MoeForConditionalGeneration"],
    "model_type": "qwen3_5_moe",
    "tie_word_embeddings": False,
    "text_config": QWEN3_5_TEXT
    | {
        "model_type": "qwen3_5_moe_text",
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
    },
}
QWEN3_5_MOE_ALONE = {"architectures": ["Qwen3_5MoeForCausalLM"], "model_type": "qwen3_5_moe", "text_config": None}
QWEN3_5_MOE_CASES = {
    "qwen3-5-moe": {},
    "qwen3-5-moe-alone": QWEN3_5_MOE["text_config"] | QWEN3_5_MOE_ALONE,
    "qwen3-5-moe-q4": {"quantization": {"group_size": 64, "bits": 4}},
}

GEMMA4_TEXT = {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4_text",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": None,
    "attention_k_eq_v": False,
    "vocab_size": 256,
    "vocab_size_per_layer_input": 256,
    "hidden_size_per_layer_input": 32,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "max_position_embeddings": 512,
    "final_logit_softcapping": 30.0,
    "enable_moe_block": False,
    "tie_word_embeddings": False,
}
# As the 31B, the 12B and the 26B-A4B have it.
GEMMA4_DENSE = {
    "num_hidden_layers": 3,
    "layer_types": GEMMA4_TEXT["layer_types"][:3],
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
}
GEMMA4_MOE = GEMMA4_DENSE | {
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 64,
}


def gemma4_q4(prefix):
    routers = {f"{prefix}model.layers.{layer}.router.proj": {"group_size": 64, "bits": 8} for layer in range(3)}
    return {"group_size": 64, "bits": 4} | routers


GEMMA4_TEXT_CASES = {
    "gemma4-shared": {},
    # All by default: a window in four layers of five, a quarter of the others' heads turning.
    "gemma4-shared-q4": {
        "hidden_size_per_layer_input": 128,
        "num_kv_shared_layers": 1,
        "rope_parameters": None,
        "layer_types": None,
        "quantization": {"group_size": 64, "bits": 4},
    },
    "gemma4-dense": GEMMA4_DENSE | {"final_logit_softcapping": None},
    "gemma4-dense-tied-q4": GEMMA4_DENSE | {"tie_word_embeddings": True, "quantization": {"group_size": 64, "bits": 4}},
    "gemma4-moe": GEMMA4_MOE,
    "gemma4-moe-q4": GEMMA4_MOE | {"quantization": gemma4_q4("")},
}
GEMMA4 = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "vocab_size": 256,
    "text_config": GEMMA4_TEXT | GEMMA4_MOE,
}
GEMMA4_CASES = {
    "gemma4-nested": {},
    "gemma4-nested-q4": {"quantization": gemma4_q4("language_model.")},
    "gemma4-nested-shared-q4": {
        "text_config": GEMMA4_TEXT | {"hidden_size_per_layer_input": 64},
        "quantization": {"group_size": 64, "bits": 4},
    },
    "gemma4-unified-tied": {
        "architectures": ["Gemma4UnifiedForConditionalGeneration"],
        "model_type": "gemma4_unified",
        "text_config": GEMMA4_TEXT | GEMMA4_DENSE | {"model_type": "gemma4_unified_text", "tie_word_embeddings": True},
    },
}

NEMOTRON_H_MOE = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 64,
    "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 192,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_group": 1,
    "topk_group": 1,
}
NEMOTRON_H = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "hybrid_override_pattern": "ME*-",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 256,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "mamba_proj_bias": False,
    "use_conv_bias": True,
    "mlp_hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "mamba_num_heads": 4,
    "mamba_head_dim": 32,
    "n_groups": 2,
    "ssm_state_size": 16,
    "conv_kernel": 4,
    "time_step_limit": [0.0, {"__float__": "Infinity"}],
}
NEMOTRON_H |= NEMOTRON_H_MOE
NEMOTRON_H_CASES = {
    "nemotron-h": {},
    "nemotron-h-dense": {
        "hybrid_override_pattern": None,
        "layers_block_type": ["mamba", "mlp", "attention", "mamba"],
        "head_dim": None,
        "attention_bias": True,
        "mlp_bias": True,
        "mamba_proj_bias": True,
        "use_conv_bias": False,
        "conv_kernel": 3,
        "time_step_limit": [0.6, 0.8],
    }
    | {key: None for key in NEMOTRON_H_MOE},
    "nemotron-h-latent": {
        "hybrid_override_pattern": ["E", "M", "*", "E"],
        "moe_latent_size": 32,
        "n_group": 4,
        "topk_group": 2,
        "n_shared_experts": None,
        "norm_topk_prob": False,
        "mlp_bias": True,
    },
    "nemotron-h-q4": {
        "num_hidden_layers": 6,
        "hybrid_override_pattern": "MEM*-E",
        "moe_latent_size": 64,
        "quantization": {"group_size": 64, "bits": 4} | {f"backbone.layers.{n}.mixer.gate": False for n in (1, 5)},
    },
}

KIMI_LINEAR = LLAMA | {
    "architectures": ["KimiLinearForCausalLM"],
    "model_type": "kimi_linear",
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "model_max_length": 512,
    "q_lora_rank": None,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 32,
    "mla_use_nope": True,
    "linear_attn_config": {
        "num_heads": 2,
        "head_dim": 64,
        "short_conv_kernel_size": 4,
        "kda_layers": [1, 2, 4],
        "full_attn_layers": [3],
    },
    "num_experts": 8,
    "num_experts_per_token": 3,
    "num_shared_experts": 1,
    "moe_intermediate_size": 64,
    "moe_router_activation_func": "sigmoid",
    "moe_renormalize": True,
    "routed_scaling_factor": 2.446,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "use_grouped_topk": True,
    "num_expert_group": 1,
    "topk_group": 1,
}
KIMI_ROUTERS = {f"model.layers.{layer}.mlp.gate": {"group_size": 64, "bits": 8} for layer in range(4)}
KIMI_LINEAR_CASES = {
    "kimi-linear": {},
    "kimi-linear-groups": {
        "num_hidden_layers": 3,
        "linear_attn_config": {"num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 3, "kda_layers": [1, 3]},
        "num_shared_experts": 0,
        "moe_renormalize": False,
        "first_k_dense_replace": 0,
        "moe_layer_freq": 2,
        "num_expert_group": 4,
        "topk_group": 2,
        "tie_word_embeddings": True,
    },
    "kimi-linear-q4": {
        "moe_router_activation_func": "softmax",
        "quantization": {"group_size": 64, "bits": 4} | KIMI_ROUTERS | SPLIT,
    },
}

LLAMA4_TEXT = LLAMA | {
    "architectures": ["Llama4ForCausalLM"],
    "model_type": "llama4_text",
    "num_hidden_layers": 4,
    "head_dim": 16,
    "intermediate_size_mlp": 128,
    "rope_theta": 500000.0,
    "attention_bias": False,
    "attention_chunk_size": 512,
    "attn_temperature_tuning": False,
    "interleave_moe_layer_step": 0,
    "moe_layers": [],
    "no_rope_layers": [1, 1, 1, 1],
    "num_experts_per_tok": 0,
    "num_local_experts": 0,
    "tie_word_embeddings": True,
    "use_qk_norm": True,
}
LLAMA4_TEXT_CASES = {
    "llama4-text": {},
    "llama4-text-nope-q4": {
        "no_rope_layers": [1, 0, 1, 0],
        "use_qk_norm": False,
        "tie_word_embeddings": False,
        "quantization": {"group_size": 64, "bits": 4},
    },
}
# The prompt ends with a chunk, or within one.
LLAMA4_NESTED = {key: value for key, value in LLAMA4_TEXT.items() if key not in ("architectures", "moe_layers")} | {
    "num_hidden_layers": 5,
    "intermediate_size": 64,
    "attention_chunk_size": 8,
    "attn_temperature_tuning": True,
    "floor_scale": 6,
    "attn_scale": 0.4,
    "interleave_moe_layer_step": 2,
    "no_rope_layers": [],
    "num_experts_per_tok": 1,
    "num_local_experts": 4,
    "rope_scaling": LLAMA3,
    "tie_word_embeddings": False,
}
LLAMA4 = {
    "architectures": ["Llama4ForConditionalGeneration"],
    "model_type": "llama4",
    "text_config": LLAMA4_NESTED,
}
LLAMA4_CASES = {
    "llama4": {},
    "llama4-q4": {
        "text_config": LLAMA4_NESTED
        | {
            "attention_bias": True,
            "attention_chunk_size": 10,
            "attn_temperature_tuning": 0,
            "interleave_moe_layer_step": 1,
            "rope_scaling": None,
            "use_qk_norm": False,
        },
        "quantization": {"group_size": 64, "bits": 4},
    },
}

GPT_OSS = LLAMA | {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "num_hidden_layers": 3,
    "head_dim": 32,
    "intermediate_size": 64,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "attention_bias": True,
    "sliding_window": 8,
    "swiglu_limit": 7.0,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    # mlx-lm always truncates.
    "rope_scaling": YARN | {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True},
}
GPT_OSS_OTHERS = ["model.embed_tokens", "lm_head"] + [
    f"model.layers.{layer}.{name}"
    for layer in range(3)
    for name in [f"self_attn.{part}_proj" for part in "qkvo"] + ["mlp.router"]
]
MXFP4 = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
GPT_OSS_CASES = {
    "gpt-oss": {},
    "gpt-oss-q4": {
        "num_hidden_layers": 2,
        "layer_types": None,
        "rope_scaling": None,
        "quantization": {"group_size": 64, "bits": 4}
        | {f"model.layers.{layer}.mlp.router": {"group_size": 64, "bits": 8} for layer in range(2)},
    },
    "gpt-oss-mxfp4-q8": {"quantization": MXFP4 | {name: {"group_size": 64, "bits": 8} for name in GPT_OSS_OTHERS}},
    # As OpenAI published it. `quantization` is what is true after the import.
    "gpt-oss-published": {
        "num_experts_per_tok": 2,
        "quantization": MXFP4 | {name: False for name in GPT_OSS_OTHERS},
        "quantization_config": {"quant_method": "mxfp4"},
    },
}

FAMILIES = {
    "bailing_moe": (BAILING_MOE, BAILING_MOE_CASES),
    "gemma": (GEMMA, GEMMA_CASES),
    "gemma2": (GEMMA2, GEMMA2_CASES),
    "gemma3": (GEMMA3, GEMMA3_CASES),
    "gemma3_text": (GEMMA3_TEXT, GEMMA3_TEXT_CASES),
    "gemma4": (GEMMA4, GEMMA4_CASES),
    "gemma4_text": (GEMMA4_TEXT, GEMMA4_TEXT_CASES),
    "deepseek_v2": (DEEPSEEK_V2, DEEPSEEK_V2_CASES),
    "deepseek_v3": (DEEPSEEK_V3, DEEPSEEK_V3_CASES),
    "glm4_moe": (GLM4_MOE, GLM4_MOE_CASES),
    "glm4_moe_lite": (GLM4_MOE_LITE, GLM4_MOE_LITE_CASES),
    "cohere2": (COHERE2, COHERE2_CASES),
    "ernie4_5": (ERNIE4_5, ERNIE4_5_CASES),
    "glm4": (GLM4, GLM4_CASES),
    "granite": (GRANITE, GRANITE_CASES),
    "granitemoe": (GRANITEMOE, GRANITEMOE_CASES),
    "granitemoehybrid": (GRANITE4, GRANITE4_CASES),
    "olmo2": (OLMO2, OLMO2_CASES),
    "olmo3": (OLMO3, OLMO3_CASES),
    "olmoe": (OLMOE, OLMOE_CASES),
    "smollm3": (SMOLLM3, SMOLLM3_CASES),
    "lfm2": (LFM2, LFM2_CASES),
    "lfm2_moe": (LFM2_MOE, LFM2_MOE_CASES),
    "llama": (LLAMA, LLAMA_CASES),
    "minimax": (MINIMAX, MINIMAX_CASES),
    "ministral3": (MINISTRAL3, MINISTRAL3_CASES),
    "mistral3": (MISTRAL3, MISTRAL3_CASES),
    "mixtral": (MIXTRAL, MIXTRAL_CASES),
    "phi3": (PHI3, PHI3_CASES),
    "qwen2": (QWEN2, QWEN2_CASES),
    "qwen2_moe": (QWEN2_MOE, QWEN2_MOE_CASES),
    "qwen2_vl": (QWEN2_VL, QWEN2_VL_CASES),
    "qwen3": (QWEN3, QWEN3_CASES),
    "qwen3_5": (QWEN3_5, QWEN3_5_CASES),
    "qwen3_5_moe": (QWEN3_5_MOE, QWEN3_5_MOE_CASES),
    "qwen3_moe": (QWEN3_MOE, QWEN3_MOE_CASES),
    "qwen3_next": (QWEN3_NEXT, QWEN3_NEXT_CASES),
    "qwen3_vl": (QWEN3_VL, QWEN3_VL_CASES),
    "seed_oss": (SEED_OSS, SEED_OSS_CASES),
    "nemotron_h": (NEMOTRON_H, NEMOTRON_H_CASES),
    "kimi_linear": (KIMI_LINEAR, KIMI_LINEAR_CASES),
    "llama4": (LLAMA4, LLAMA4_CASES),
    "llama4_text": (LLAMA4_TEXT, LLAMA4_TEXT_CASES),
    "gpt_oss": (GPT_OSS, GPT_OSS_CASES),
}


def tensor(name, shape):
    """16 random bits for each element, as an exact f32 in [-1, 1)."""
    digest = np.uint64(0xCBF29CE484222325)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            digest = (digest ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        x = digest + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    unit = (x >> np.uint64(48)).astype(np.float32) / np.float32(32768) - np.float32(1)
    if name.endswith("norm.weight"):
        unit = np.float32(1) + unit * np.float32(0.25)
    elif name.endswith("layer_scalar"):
        unit = np.float32(0.75) + unit * np.float32(0.25)
    elif ".experts." in name and name.endswith("bias") and "down_proj" not in name:
        unit = unit * np.float32(8)  # Beyond the limit of gpt-oss's gates and values.
    elif "embed_tokens" not in name:
        unit = unit * np.float32(0.25)
    return mx.array(unit.reshape(shape))


MLP_NAMES = ("gate_proj", "up_proj", "down_proj")


def gated(module, hidden, inner, names=MLP_NAMES):
    shapes = [(inner, hidden), (inner, hidden), (hidden, inner)]
    return {f"{module}.{name}": shape for name, shape in zip(names, shapes)}


def is_lfm2(config):
    return config["model_type"] in ("lfm2", "lfm2_moe")


def lfm2_feed_forward(config, layer):
    """mlx-lm renames the matrices of models with experts, and stacks those."""
    hidden, is_packed = config["hidden_size"], "quantization" in config
    has_experts = layer >= config.get("num_dense_layers", config["num_hidden_layers"])
    names = MLP_NAMES if is_packed and "num_experts" in config else ("w1", "w3", "w2")
    if not has_experts:
        return gated("feed_forward", hidden, config["intermediate_size"], names)
    experts, inner = config["num_experts"], config["moe_intermediate_size"]
    modules = {"feed_forward.gate": (experts, hidden)}
    if is_packed:
        stacked = gated("feed_forward.switch_mlp", hidden, inner, names)
        return modules | {name: (experts, *shape) for name, shape in stacked.items()}
    for n in range(experts):
        modules |= gated(f"feed_forward.experts.{n}", hidden, inner, names)
    return modules


def has_bias(config, name):
    if config.get("use_bias") or config.get("conv_bias") and name.startswith("conv."):
        return True
    if "attn" not in name:
        return config.get("mlp_bias")
    if "o_proj" in name and config["model_type"] in ("glm4", "glm4_moe"):
        return False
    if "o_proj" in name and "attention_out_bias" in config:
        return config["attention_out_bias"]
    return config.get("attention_bias") or config.get("qkv_bias") and "o_proj" not in name


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def mlp(config, layer):
    """Modules of a layer's second half, and their shapes. Quantized checkpoints stack their experts, as mlx-lm's
    converter leaves them; plain ones have a module for each, as published."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    experts = next((config[key] for key in EXPERTS if key in config), 0)
    is_dense = layer in config.get("mlp_only_layers", []) or layer < config.get("first_k_dense_replace", 0)
    if is_lfm2(config):
        return lfm2_feed_forward(config, layer)
    if config["model_type"] in FUSED_MLP:
        return {"mlp.gate_up_proj": (2 * inner, hidden), "mlp.down_proj": (hidden, inner)}
    if experts == 0 or is_dense or layer % config.get("moe_layer_freq", 1):
        return gated("mlp", hidden, inner)
    inner = config.get("moe_intermediate_size", inner)
    at = "block_sparse_moe" if config["model_type"] == "mixtral" else "mlp"
    modules = {f"{at}.gate": (experts, hidden)}
    if "quantization" in config:
        stacked = gated(f"{at}.switch_mlp", hidden, inner)
        modules |= {name: (experts, *shape) for name, shape in stacked.items()}
    elif config["model_type"] not in WHOLE_EXPERTS:
        names = ("w1", "w3", "w2") if at == "block_sparse_moe" else MLP_NAMES
        for n in range(experts):
            modules |= gated(f"{at}.experts.{n}", hidden, inner, names)
    if "shared_expert_intermediate_size" in config:
        modules |= gated(f"{at}.shared_expert", hidden, config["shared_expert_intermediate_size"])
        modules |= {f"{at}.shared_expert_gate": (1, hidden)}
    if config.get("n_shared_experts"):
        modules |= gated(f"{at}.shared_experts", hidden, inner * config["n_shared_experts"])
    return modules


# Norms of a layer's rows, where they are not Llama's two.
LAYER_NORMS = {
    "lfm2": [],
    "lfm2_moe": [],
    "cohere2": ["input"],
    "gemma2": ["input", "post_attention", "pre_feedforward", "post_feedforward"],
    "gemma3_text": ["input", "post_attention", "pre_feedforward", "post_feedforward"],
    "glm4": ["input", "post_self_attn", "post_attention", "post_mlp"],
    "olmo2": ["post_attention", "post_feedforward"],
    "olmo3": ["post_attention", "post_feedforward"],
}
HYBRIDS = ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next")
# Experts of plain checkpoints in one tensor.
WHOLE_EXPERTS = ("qwen3_5_moe", "qwen3_5_moe_text")
HEAD_NORMS = ("gemma3_text", "qwen3", "qwen3_moe", "qwen3_vl_text", *HYBRIDS)
# Norms of q and k as wide as all their heads.
ROW_NORMS = ("olmo2", "olmo3", "olmoe")
FUSED_QKV = ("phi3",)
FUSED_MLP = ("glm4", "phi3")


def latent_attention(config):
    """Modules and norms of multi-head latent attention."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rank, rope, nope = config["kv_lora_rank"], config["qk_rope_head_dim"], config["qk_nope_head_dim"]
    modules = {
        "self_attn.kv_a_proj_with_mqa": (rank + rope, hidden),
        "self_attn.kv_b_proj": (heads * (nope + config["v_head_dim"]), rank),
        "self_attn.o_proj": (hidden, heads * config["v_head_dim"]),
    }
    if "quantization" in config and config["model_type"] != "deepseek_v2":
        del modules["self_attn.kv_b_proj"]
        modules["self_attn.embed_q"] = (heads, rank, nope)
        modules["self_attn.unembed_out"] = (heads, config["v_head_dim"], rank)
    norms = {"self_attn.kv_a_layernorm": rank}
    q_rank, q = config["q_lora_rank"], heads * (nope + rope)
    if q_rank is None:
        return modules | {"self_attn.q_proj": (q, hidden)}, norms
    modules |= {"self_attn.q_a_proj": (q_rank, hidden), "self_attn.q_b_proj": (q, q_rank)}
    return modules, norms | {"self_attn.q_a_layernorm": q_rank}


def is_recurrent(config, layer):
    if is_lfm2(config):
        attending = config.get("full_attn_idxs")
        return config["layer_types"][layer] == "conv" if attending is None else layer not in attending
    return config["model_type"] in HYBRIDS and (layer + 1) % config["full_attention_interval"] != 0


def recurrent(config):
    """Modules and norms of a gated delta net, or of a short convolution."""
    hidden = config["hidden_size"]
    if is_lfm2(config):
        return {"conv.in_proj": (3 * hidden, hidden), "conv.out_proj": (hidden, hidden)}, {}
    heads = config["linear_num_value_heads"]
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    values = heads * config["linear_value_head_dim"]
    if config["model_type"] == "qwen3_next":
        parts = {"qkvz": 2 * keys + 2 * values, "ba": 2 * heads}
    else:
        parts = {"qkv": 2 * keys + values, "z": values, "b": heads, "a": heads}
    modules = {f"linear_attn.in_proj_{name}": (rows, hidden) for name, rows in parts.items()}
    modules["linear_attn.out_proj"] = (hidden, values)
    return modules, {"linear_attn.norm": config["linear_value_head_dim"]}


def bare_tensors(config, layer):
    """Tensors of a layer that are no matrices of modules."""
    if is_lfm2(config):
        if config.get("use_expert_bias") and layer >= config["num_dense_layers"]:
            yield "feed_forward.expert_bias", (config["num_experts"],)
        if is_recurrent(config, layer):
            hidden, taps = config["hidden_size"], config["conv_L_cache"]
            yield "conv.conv.weight", (hidden, taps, 1) if "quantization" in config else (hidden, 1, taps)
            if config["conv_bias"]:
                yield "conv.conv.bias", (hidden,)
        return
    if is_recurrent(config, layer):
        heads, taps = config["linear_num_value_heads"], config["linear_conv_kernel_dim"]
        keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
        channels = 2 * keys + heads * config["linear_value_head_dim"]
        shape = (channels, taps, 1) if "quantization" in config else (channels, 1, taps)
        yield "linear_attn.conv1d.weight", shape
        yield "linear_attn.A_log", (heads,)
        yield "linear_attn.dt_bias", (heads,)
    if config["model_type"] in WHOLE_EXPERTS and "quantization" not in config:
        experts, inner = config["num_experts"], config["moe_intermediate_size"]
        yield "mlp.experts.gate_up_proj", (experts, 2 * inner, config["hidden_size"])
        yield "mlp.experts.down_proj", (experts, config["hidden_size"], inner)


def attention(config, layer):
    """Modules of a layer's first half and their shapes, and the widths of its norms."""
    if is_recurrent(config, layer):
        return recurrent(config)
    hidden, heads, kind = config["hidden_size"], config["num_attention_heads"], config["model_type"]
    if "kv_lora_rank" in config:
        return latent_attention(config)
    head_dim = config.get("head_dim", hidden // heads)
    q, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
    modules = {
        "self_attn.q_proj": (2 * q if kind in HYBRIDS else q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
    }
    if kind in FUSED_QKV:
        modules = {"self_attn.qkv_proj": (q + 2 * kv, hidden)}
    norms = {}
    if kind in HEAD_NORMS or config.get("use_qk_norm"):
        norms = {"self_attn.q_norm": head_dim, "self_attn.k_norm": head_dim}
    if is_lfm2(config):
        modules["self_attn.out_proj"] = (hidden, q)
        return modules, {"self_attn.q_layernorm": head_dim, "self_attn.k_layernorm": head_dim}
    if kind in ROW_NORMS:
        norms = {"self_attn.q_norm": q, "self_attn.k_norm": kv}
    return modules | {"self_attn.o_proj": (hidden, q)}, norms


def gemma4_layer(config, layer):
    """Modules and norms of a layer, then its tensors that are neither."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width, inner = config["hidden_size_per_layer_input"], config["intermediate_size"]
    types = config["layer_types"] or [f"{kind}_attention" for kind in ["sliding"] * 4 + ["full", "sliding"]]
    is_global = types[layer] == "full_attention"
    is_shared = layer >= config["num_hidden_layers"] - config["num_kv_shared_layers"]
    keys_are_values = config["attention_k_eq_v"] and is_global
    head_dim = config["global_head_dim"] if is_global else config["head_dim"]
    kv = head_dim * config["num_global_key_value_heads" if keys_are_values else "num_key_value_heads"]
    modules = {"self_attn.q_proj": (heads * head_dim, hidden), "self_attn.o_proj": (hidden, heads * head_dim)}
    norms = {"self_attn.q_norm": head_dim}
    if not is_shared:
        modules["self_attn.k_proj"] = (kv, hidden)
        norms["self_attn.k_norm"] = head_dim
        if not keys_are_values:
            modules["self_attn.v_proj"] = (kv, hidden)
    modules |= gated("mlp", hidden, inner * (2 if is_shared and config["use_double_wide_mlp"] else 1))
    rows = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    bare = {"layer_scalar": (1,)}
    if width:
        modules |= {"per_layer_input_gate": (width, hidden), "per_layer_projection": (hidden, width)}
        rows.append("post_per_layer_input_norm")
    if config["enable_moe_block"]:
        experts, inner = config["num_experts"], config["moe_intermediate_size"]
        rows += ["pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"]
        modules["router.proj"] = (experts, hidden)
        bare |= {"router.scale": (hidden,), "router.per_expert_scale": (experts,)}
        if "quantization" in config:
            stacked = gated("experts.switch_glu", hidden, inner)
            modules |= {name: (experts, *shape) for name, shape in stacked.items()}
        else:
            bare["experts.gate_up_proj"] = (experts, 2 * inner, hidden)
            bare["experts.down_proj"] = (experts, hidden, inner)
    return modules, norms | {name: hidden for name in rows}, bare


def gemma4_shapes(config, prefix):
    hidden, vocab, layers = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    yield f"{prefix}model.embed_tokens.weight", (vocab, hidden)
    yield f"{prefix}model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield f"{prefix}lm_head.weight", (vocab, hidden)
    if width := config["hidden_size_per_layer_input"]:
        yield f"{prefix}model.embed_tokens_per_layer.weight", (vocab, layers * width)
        yield f"{prefix}model.per_layer_model_projection.weight", (layers * width, hidden)
        yield f"{prefix}model.per_layer_projection_norm.weight", (width,)
    for layer in range(layers):
        modules, norms, bare = gemma4_layer(config, layer)
        weights = modules | {name: (width,) for name, width in norms.items()}
        for name, shape in (bare | {f"{name}.weight": shape for name, shape in weights.items()}).items():
            yield f"{prefix}model.layers.{layer}.{name}", shape


def nemotron_h_mixer(config, kind):
    hidden = config["hidden_size"]
    if kind == "M":
        heads, taps = config["mamba_num_heads"], config["conv_kernel"]
        inner = heads * config["mamba_head_dim"]
        channels = inner + 2 * config["n_groups"] * config["ssm_state_size"]
        modules = {"in_proj": (inner + channels + heads, hidden), "out_proj": (hidden, inner)}
        yield from with_biases(modules, config["mamba_proj_bias"])
        yield "conv1d.weight", (channels, taps, 1) if "quantization" in config else (channels, 1, taps)
        if config["use_conv_bias"]:
            yield "conv1d.bias", (channels,)
        yield "norm.weight", (inner,)
        for name in ("A_log", "D", "dt_bias"):
            yield name, (heads,)
    elif kind == "*":
        heads = config["num_attention_heads"]
        head_dim = config["head_dim"] or hidden // heads
        q, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
        modules = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
        yield from with_biases(modules, config["attention_bias"])
    elif kind == "-":
        yield from with_biases(ungated("", hidden, config["intermediate_size"]), config["mlp_bias"])
    else:
        experts, inner = config["n_routed_experts"], config["moe_intermediate_size"]
        latent = config.get("moe_latent_size")
        yield "gate.weight", (experts, hidden)
        yield "gate.e_score_correction_bias", (experts,)
        if latent:
            modules = {"fc1_latent_proj": (latent, hidden), "fc2_latent_proj": (hidden, latent)}
            yield from with_biases(modules, config["mlp_bias"])
        if "quantization" in config:
            yield "switch_mlp.fc1.weight", (experts, inner, latent or hidden)
            yield "switch_mlp.fc2.weight", (experts, latent or hidden, inner)
        else:
            for n in range(experts):
                yield from with_biases(ungated(f"experts.{n}.", latent or hidden, inner), False)
        if config["n_shared_experts"]:
            inner = config["moe_shared_expert_intermediate_size"]
            yield from with_biases(ungated("shared_experts.", hidden, inner), config["mlp_bias"])


def ungated(at, hidden, inner):
    return {f"{at}up_proj": (inner, hidden), f"{at}down_proj": (hidden, inner)}


def with_biases(modules, has_bias):
    for name, shape in modules.items():
        yield f"{name}.weight", shape
        if has_bias:
            yield f"{name}.bias", shape[:1]


def nemotron_h(config):
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield "backbone.embeddings.weight", (vocab, hidden)
    yield "backbone.norm_f.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)
    letters = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
    listed = [letters[kind] for kind in config.get("layers_block_type", [])]
    for layer, kind in enumerate(config["hybrid_override_pattern"] or listed):
        yield f"backbone.layers.{layer}.norm.weight", (hidden,)
        for name, shape in nemotron_h_mixer(config, kind):
            yield f"backbone.layers.{layer}.mixer.{name}", shape


def kimi_delta_attention(config):
    linear, hidden = config["linear_attn_config"], config["hidden_size"]
    heads, head_dim, taps = linear["num_heads"], linear["head_dim"], linear["short_conv_kernel_size"]
    inner = heads * head_dim
    for part in "qkv":
        yield f"{part}_proj.weight", (inner, hidden)
        if "quantization" in config:
            yield f"{part}_conv.conv.weight", (inner, taps, 1)
        else:
            yield f"{part}_conv1d.weight", (inner, 1, taps)
    for part in "fg":
        yield f"{part}_a_proj.weight", (head_dim, hidden)
        yield f"{part}_b_proj.weight", (inner, head_dim)
    yield "b_proj.weight", (heads, hidden)
    yield "A_log", (1, 1, heads, 1)
    yield "dt_bias", (inner,)
    yield "o_norm.weight", (head_dim,)
    yield "o_proj.weight", (hidden, inner)


def kimi_experts(config):
    """As published, or as mlx-lm writes them."""
    experts, hidden, inner = config["num_experts"], config["hidden_size"], config["moe_intermediate_size"]
    at, biased, modules = "block_sparse_moe", "block_sparse_moe.gate", {}
    if "quantization" in config:
        at, biased = "mlp", "mlp"
        stacked = gated("mlp.switch_mlp", hidden, inner)
        modules = {name: (experts, *shape) for name, shape in stacked.items()}
    else:
        for n in range(experts):
            modules |= gated(f"{at}.experts.{n}", hidden, inner, ("w1", "w3", "w2"))
    modules[f"{at}.gate"] = (experts, hidden)
    if config["num_shared_experts"]:
        modules |= gated(f"{at}.shared_experts", hidden, inner * config["num_shared_experts"])
    yield from with_biases(modules, False)
    yield f"{biased}.e_score_correction_bias", (experts,)


def kimi_linear(config):
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for norm in ("input", "post_attention"):
            yield f"{at}{norm}_layernorm.weight", (hidden,)
        if layer + 1 in config["linear_attn_config"]["kda_layers"]:
            for name, shape in kimi_delta_attention(config):
                yield f"{at}self_attn.{name}", shape
        else:
            modules, norms = latent_attention(config)
            for name, shape in with_biases(modules | {name: (width,) for name, width in norms.items()}, False):
                yield f"{at}{name}", shape
        if layer < config["first_k_dense_replace"] or layer % config["moe_layer_freq"]:
            second = with_biases(gated("mlp", hidden, config["intermediate_size"]), False)
        else:
            second = kimi_experts(config)
        for name, shape in second:
            yield f"{at}{name}", shape


def bailing_moe(config):
    hidden, vocab, heads = config["hidden_size"], config["vocab_size"], config["num_attention_heads"]
    experts, inner, head_dim = config["num_experts"], config["moe_intermediate_size"], hidden // heads
    is_packed = "quantization" in config
    yield "model.word_embeddings.weight", (vocab, hidden)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        qkv = (heads + 2 * config["num_key_value_heads"]) * head_dim
        yield from with_biases({f"{at}attention.query_key_value": (qkv, hidden)}, config["use_qkv_bias"])
        modules = {"attention.dense": (hidden, hidden)}
        modules |= {f"{norm}_layernorm": (hidden,) for norm in ("input", "post_attention")}
        if config["use_qk_norm"]:
            modules |= {f"attention.{part}_layernorm": (head_dim,) for part in ("query", "key")}
        if layer < config["first_k_dense_replace"]:
            modules |= gated("mlp", hidden, config["intermediate_size"])
        else:
            modules["mlp.gate.gate_proj" if is_packed else "mlp.gate"] = (experts, hidden)
            if config["moe_router_enable_expert_bias"]:
                yield f"{at}mlp.gate.expert_bias", (experts,)
            if is_packed:
                stacked = gated("mlp.switch_mlp", hidden, inner)
                modules |= {name: (experts, *shape) for name, shape in stacked.items()}
            else:
                for n in range(experts):
                    modules |= gated(f"mlp.experts.{n}", hidden, inner)
            if config["num_shared_experts"]:
                modules |= gated("mlp.shared_experts", hidden, config["moe_shared_expert_intermediate_size"])
        for name, shape in with_biases(modules, False):
            yield f"{at}{name}", shape


def granite_mamba(config):
    hidden, heads, taps = config["hidden_size"], config["mamba_n_heads"], config["mamba_d_conv"]
    inner = heads * config["mamba_d_head"]
    channels = inner + 2 * config["mamba_n_groups"] * config["mamba_d_state"]
    modules = {"in_proj": (inner + channels + heads, hidden), "out_proj": (hidden, inner)}
    yield from with_biases(modules, config["mamba_proj_bias"])
    yield "conv1d.weight", (channels, taps, 1) if "quantization" in config else (channels, 1, taps)
    if config["mamba_conv_bias"]:
        yield "conv1d.bias", (channels,)
    yield "norm.weight", (inner,)
    for name in ("A_log", "D", "dt_bias"):
        yield name, (heads,)


def granite_attention(config):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv = config["num_key_value_heads"] * hidden // heads
    modules = {"q_proj": (hidden, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, hidden)}
    yield from with_biases(modules, config["attention_bias"])


def granite_second_half(config):
    """Gates and values are one matrix as published; mlx-lm takes them apart, except those of MLPs beside experts."""
    hidden, inner, is_packed = config["hidden_size"], config["intermediate_size"], "quantization" in config
    experts, shared = config["num_local_experts"], config.get("shared_intermediate_size", 0)
    modules = {}
    if experts:
        at = "block_sparse_moe"
        modules[f"{at}.router.layer"] = (experts, hidden)
        stacked = {"input_linear": (2 * inner, hidden), "output_linear": (hidden, inner)}
        if is_packed:
            stacked = gated("switch_mlp", hidden, inner)
        modules |= {f"{at}.{name}": (experts, *shape) for name, shape in stacked.items()}
    if is_packed and not experts:
        modules |= gated("mlp", hidden, inner)
    elif shared:
        modules |= {"shared_mlp.input_linear": (2 * shared, hidden), "shared_mlp.output_linear": (hidden, shared)}
    yield from with_biases(modules, False)


def granite_hybrid(config):
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for norm in ("input", "post_attention"):
            yield f"{at}{norm}_layernorm.weight", (hidden,)
        is_recurrent = config.get("layer_types", ["attention"] * (layer + 1))[layer] == "mamba"
        for name, shape in granite_mamba(config) if is_recurrent else granite_attention(config):
            yield f"{at}{'mamba' if is_recurrent else 'self_attn'}.{name}", shape
        for name, shape in granite_second_half(config):
            yield f"{at}{name}", shape


def minimax(config):
    hidden, vocab, heads = config["hidden_size"], config["vocab_size"], config["num_attention_heads"]
    experts, inner = config["num_local_experts"], config["intermediate_size"]
    head_dim = config["head_dim"] or hidden // heads
    q, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
    yield "model.embed_tokens.weight", (vocab, hidden)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        modules = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
        if config["use_qk_norm"]:
            modules |= {"q_norm": (q,), "k_norm": (kv,)}
        modules = {f"self_attn.{name}": shape for name, shape in modules.items()}
        modules |= {f"{norm}_layernorm": (hidden,) for norm in ("input", "post_attention")}
        modules["block_sparse_moe.gate"] = (experts, hidden)
        if "quantization" in config:
            stacked = gated("block_sparse_moe.switch_mlp", hidden, inner)
            modules |= {name: (experts, *shape) for name, shape in stacked.items()}
        else:
            for n in range(experts):
                modules |= gated(f"block_sparse_moe.experts.{n}", hidden, inner, ("w1", "w3", "w2"))
        for name, shape in with_biases(modules, False):
            yield f"model.layers.{layer}.{name}", shape
        yield f"model.layers.{layer}.block_sparse_moe.e_score_correction_bias", (experts,)


def llama4_layer(config, layer):
    """As published, or as mlx-lm writes it."""
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    q, kv = (config[f"num_{kind}_heads"] * config["head_dim"] for kind in ("attention", "key_value"))
    modules = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
    yield from with_biases({f"self_attn.{name}": shape for name, shape in modules.items()}, config["attention_bias"])
    for norm in ("input", "post_attention"):
        yield f"{norm}_layernorm.weight", (hidden,)
    step = config["interleave_moe_layer_step"]
    if experts == 0 or (layer + 1) % step:
        yield from with_biases(gated("feed_forward", hidden, config["intermediate_size_mlp"]), False)
        return
    yield "feed_forward.router.weight", (experts, hidden)
    yield from with_biases(gated("feed_forward.shared_expert", hidden, inner), False)
    if "quantization" in config:
        for name, shape in gated("feed_forward.experts", hidden, inner).items():
            yield f"{name}.weight", (experts, *shape)
    else:
        yield "feed_forward.experts.gate_up_proj", (experts, hidden, 2 * inner)
        yield "feed_forward.experts.down_proj", (experts, inner, hidden)


def llama4(config):
    text, prefix = config, ""
    if "text_config" in config:
        shared = {key: config[key] for key in ("quantization",) if key in config}
        text, prefix = config["text_config"] | shared, "language_model."
    hidden, vocab = text["hidden_size"], text["vocab_size"]
    yield f"{prefix}model.embed_tokens.weight", (vocab, hidden)
    yield f"{prefix}model.norm.weight", (hidden,)
    if not text["tie_word_embeddings"]:
        yield f"{prefix}lm_head.weight" if prefix else "output.weight", (vocab, hidden)
    for layer in range(text["num_hidden_layers"]):
        for name, shape in llama4_layer(text, layer):
            yield f"{prefix}model.layers.{layer}.{name}", shape


def gpt_oss(config):
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    head_dim = config["head_dim"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for norm in ("input", "post_attention"):
            yield f"{at}{norm}_layernorm.weight", (hidden,)
        yield f"{at}self_attn.sinks", (config["num_attention_heads"],)
        modules = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
        modules = {f"self_attn.{name}": shape for name, shape in modules.items()}
        for name, shape in with_biases(modules | {"mlp.router": (experts, hidden)}, True):
            yield f"{at}{name}", shape
        if "quantization_config" in config:
            for name, shape in {"gate_up_proj": (2 * inner, hidden), "down_proj": (hidden, inner)}.items():
                yield f"{at}mlp.experts.{name}.weight", (experts, *shape)
                yield f"{at}mlp.experts.{name}_bias", (experts, shape[0])
        else:
            for name, shape in with_biases(gated("mlp.experts", hidden, inner), True):
                yield f"{at}{name}", (experts, *shape)


# Families whose tensors have little in common with Llama's.
OWN_SHAPES = {
    "bailing_moe": bailing_moe,
    "granitemoe": granite_hybrid,
    "granitemoehybrid": granite_hybrid,
    "kimi_linear": kimi_linear,
    "llama4": llama4,
    "llama4_text": llama4,
    "gpt_oss": gpt_oss,
    "minimax": minimax,
    "minimax_m2": minimax,
    "nemotron_h": nemotron_h,
}


def shapes(config, prefix=""):
    if config.get("model_type") in OWN_SHAPES:
        yield from OWN_SHAPES[config["model_type"]](config)
        return
    if "text_config" in config:
        shared = {key: config[key] for key in ("quantization",) if key in config}
        yield from shapes(config["text_config"] | shared, "language_model.")
        return
    if config["model_type"].startswith("gemma4"):
        yield from gemma4_shapes(config, prefix)
        return
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield f"{prefix}model.embed_tokens.weight", (vocab, hidden)
    yield f"{prefix}model.{'embedding_norm' if is_lfm2(config) else 'norm'}.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield f"{prefix}lm_head.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"{prefix}model.layers.{layer}."
        attention_modules, norms = attention(config, layer)
        for name in LAYER_NORMS.get(config["model_type"], ["input", "post_attention"]):
            norms[f"{name}_layernorm"] = hidden
        if is_lfm2(config):
            norms |= {"operator_norm": hidden, "ffn_norm": hidden}
        for name, shape in bare_tensors(config, layer):
            yield f"{at}{name}", shape
        for name, width in norms.items():
            yield f"{at}{name}.weight", (width,)
        for name, shape in (attention_modules | mlp(config, layer)).items():
            yield f"{at}{name}.weight", shape
            if name.endswith("mlp.gate") and config.get("topk_method") == "noaux_tc":
                yield f"{at}{name}.e_score_correction_bias", shape[:1]
            if has_bias(config, name):
                yield f"{at}{name}.bias", shape[:1]


def quantized(config, name, weight):
    """The stored tensors of one weight."""
    default = config.get("quantization")
    module = name.removesuffix(".weight")
    if not name.endswith(".weight"):
        return {name: weight}
    if default is None or weight.ndim < 2 or "conv1d" in name or "conv.conv" in name or default.get(module) is False:
        return {name: weight}
    spec = default.get(module, default)
    parts = mx.quantize(weight, spec["group_size"], spec["bits"], spec.get("mode", "affine"))
    if "quantization_config" in config:
        blocks = parts[0].view(mx.uint8)
        return {f"{module}_blocks": blocks.reshape(*blocks.shape[:-1], -1, 16), f"{module}_scales": parts[1]}
    return dict(zip([name, f"{module}.scales", f"{module}.biases"], parts))


def write_folder(config, folder):
    weights = {}
    for name, shape in shapes(config):
        weights |= quantized(config, name, tensor(name, shape))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    if "quantization_config" in config:
        config = {key: value for key, value in config.items() if key != "quantization"}
    (folder / "config.json").write_text(json.dumps(config))


def greedy(model):
    cache = make_prompt_cache(model)
    inputs, logits_of_prompt, output_ids, margins = mx.array([PROMPT]), None, [], []
    for _ in range(NUM_TOKENS):
        logits = np.array(model(inputs, cache=cache)[0, -1])
        if logits_of_prompt is None:
            logits_of_prompt = logits
        runner_up, best = np.sort(logits)[-2:]
        output_ids.append(int(logits.argmax()))
        margins.append(round(float(best - runner_up), 5))
        inputs = mx.array([output_ids[-1:]])
    return [float(f"{x:.7g}") for x in logits_of_prompt], output_ids, margins


def write_golden(family, name, config):
    with tempfile.TemporaryDirectory() as folder:
        write_folder(config, Path(folder))
        model, _ = load_model(Path(folder))
    logits, output_ids, margins = greedy(model)
    golden = {
        "config": config,
        "made_by": f"mlx-lm {version('mlx-lm')}",
        "prompt": PROMPT,
        "output_ids": output_ids,
        "margins": margins,
        "logits": logits,
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    (OUT / family).mkdir(parents=True, exist_ok=True)
    (OUT / family / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{name}: smallest margin {min(margins)}, {len(set(output_ids))} distinct tokens", file=sys.stderr)


def main():
    mx.set_default_device(mx.cpu)
    for family in sys.argv[1:] or FAMILIES:
        base, cases = FAMILIES[family]
        for name, overrides in cases.items():
            config = base | overrides
            if config.get("text_config", "") is None:
                del config["text_config"]
            write_golden(family, name, config)


if __name__ == "__main__":
    main()
