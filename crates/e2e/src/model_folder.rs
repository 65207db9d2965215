//! SmolLM2 as Hugging Face folders: the GGUF file's codes in MLX's packing, or
//! multiplied out. `tools/oracle/smollm2_folder.py` makes the same folders for
//! mlx-lm, which the goldens come from.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use half::{bf16, f16};
use serde_json::{Value, json};

use crate::gguf::{Gguf, GgufTensor};

const GROUP: usize = 32;

/// How a folder holds the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// MLX 4-bit with the GGUF's own f16 scales: nothing is lost.
    MlxF16,
    /// MLX 4-bit with scales rounded to bf16, as mlx-community has them.
    MlxBf16,
    /// f32, multiplied out.
    Plain,
}

/// Writes the model of the GGUF file at `source` into the folder `target`.
pub fn model_folder(source: &Path, target: &Path, weights: Weights) -> Result<()> {
    let gguf = Gguf::read(source)?;
    let mut wide = Vec::new();
    let mut out: BTreeMap<String, Tensor> = BTreeMap::new();
    for tensor in &gguf.tensors {
        let name = hf_name(&tensor.name)?;
        if tensor.kind == 0 {
            let values = gguf.data(tensor).chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            out.insert(format!("{name}.weight"), weights.vector(values));
            continue;
        }
        let packed = Packed::read(&gguf, tensor)?;
        if packed.bits == 8 {
            wide.push(name.clone());
        }
        packed.write(&name, weights, &mut out);
    }
    let tied = !out.contains_key("lm_head.weight");
    write_json(&target.join("config.json"), &config(&gguf, weights, tied, &wide)?)?;
    write_json(&target.join("tokenizer.json"), &tokenizer(&gguf)?)?;
    write_json(&target.join("tokenizer_config.json"), &tokenizer_config(&gguf)?)?;
    write_safetensors(&target.join("model.safetensors"), &out)
}

/// `blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj`.
fn hf_name(gguf_name: &str) -> Result<String> {
    let stem = gguf_name.strip_suffix(".weight").context("a weight")?;
    let (prefix, part) = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (format!("model.layers.{layer}."), part),
        None => (String::new(), stem),
    };
    let part = match part {
        "token_embd" => "model.embed_tokens",
        "output_norm" => "model.norm",
        "output" => "lm_head",
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => bail!("unknown tensor {gguf_name}"),
    };
    Ok(prefix + part)
}

/// A tensor as safetensors stores it.
pub(crate) struct Tensor {
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Weights {
    /// A norm's weight.
    fn vector(self, values: Vec<f32>) -> Tensor {
        let shape = vec![values.len()];
        match self {
            Self::MlxBf16 => floats16(&values, shape, Weights::MlxBf16),
            _ => Tensor {
                dtype: "F32",
                shape,
                bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            },
        }
    }
}

fn floats16(values: &[f32], shape: Vec<usize>, weights: Weights) -> Tensor {
    let (dtype, bits): (_, fn(f32) -> u16) = match weights {
        Weights::MlxBf16 => ("BF16", |v| bf16::from_f32(v).to_bits()),
        _ => ("F16", |v| f16::from_f32(v).to_bits()),
    };
    Tensor { dtype, shape, bytes: values.iter().flat_map(|v| bits(*v).to_le_bytes()).collect() }
}

/// Unsigned codes with a scale and a bias for each group of 32.
struct Packed {
    shape: [usize; 2],
    bits: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Packed {
    fn read(gguf: &Gguf, tensor: &GgufTensor) -> Result<Self> {
        let &[rows, cols] = tensor.shape.as_slice() else { bail!("{}: no matrix", tensor.name) };
        let part = tensor.name.split('.').nth_back(1).unwrap_or_default();
        let head_counts = "llama.attention.head_count";
        let row_of: Box<dyn Fn(usize) -> usize> = match part {
            "attn_q" => halves(rows / gguf.number(head_counts)?),
            "attn_k" => halves(rows / gguf.number(&format!("{head_counts}_kv"))?),
            _ => Box::new(|row| row),
        };
        let bits = if tensor.kind == 3 { 4 } else { 8 };
        let mut packed =
            Self { shape: [rows, cols], bits, codes: vec![], scales: vec![], biases: vec![] };
        let data = gguf.data(tensor);
        let row_len = data.len() / rows;
        for row in (0..rows).map(row_of) {
            let blocks = &data[row * row_len..(row + 1) * row_len];
            blocks.chunks_exact(row_len / (cols / GROUP)).for_each(|block| packed.push(block));
        }
        Ok(packed)
    }

    /// One block of 32 values, Q4_1 or Q8_0.
    fn push(&mut self, block: &[u8]) {
        let half_at = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        let scale = half_at(0);
        self.scales.push(scale);
        if self.bits == 4 {
            self.biases.push(half_at(2));
            self.codes.extend(block[4..].iter().map(|byte| byte & 15));
            self.codes.extend(block[4..].iter().map(|byte| byte >> 4));
        } else {
            self.biases.push(scale * -128.0);
            // i8 to u8 plus 128: the sign bit flips.
            self.codes.extend(block[2..].iter().map(|byte| byte ^ 0x80));
        }
    }

    fn write(&self, name: &str, weights: Weights, out: &mut BTreeMap<String, Tensor>) {
        let [rows, cols] = self.shape;
        if weights == Weights::Plain {
            let groups = self.codes.chunks_exact(GROUP).zip(self.scales.iter().zip(&self.biases));
            let mut bytes = Vec::with_capacity(rows * cols * 4);
            for (codes, (scale, bias)) in groups {
                for code in codes {
                    bytes.extend((f32::from(*code) * scale + bias).to_le_bytes());
                }
            }
            let tensor = Tensor { dtype: "F32", shape: vec![rows, cols], bytes };
            out.insert(format!("{name}.weight"), tensor);
            return;
        }
        // Little-endian words, first code lowest: as bytes, two nibbles or one.
        let bytes = match self.bits {
            4 => self.codes.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect(),
            _ => self.codes.clone(),
        };
        let words = Tensor { dtype: "U32", shape: vec![rows, cols * self.bits / 32], bytes };
        let groups = vec![rows, cols / GROUP];
        out.insert(format!("{name}.weight"), words);
        out.insert(format!("{name}.scales"), floats16(&self.scales, groups.clone(), weights));
        out.insert(format!("{name}.biases"), floats16(&self.biases, groups, weights));
    }
}

/// GGUF interleaves the two halves of each rotary head; this is the way back.
fn halves(head_dim: usize) -> Box<dyn Fn(usize) -> usize> {
    Box::new(move |row| {
        let (head, at) = (row / head_dim, row % head_dim);
        let (half, pair) = (at / (head_dim / 2), at % (head_dim / 2));
        head * head_dim + pair * 2 + half
    })
}

fn config(gguf: &Gguf, weights: Weights, tied: bool, wide: &[String]) -> Result<Value> {
    let number = |key: &str| gguf.number(&format!("llama.{key}"));
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": number("embedding_length")?,
        "intermediate_size": number("feed_forward_length")?,
        "num_hidden_layers": number("block_count")?,
        "num_attention_heads": number("attention.head_count")?,
        "num_key_value_heads": number("attention.head_count_kv")?,
        "max_position_embeddings": number("context_length")?,
        "vocab_size": number("vocab_size")?,
        "rms_norm_eps": gguf.fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": gguf.fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": gguf.number("tokenizer.ggml.bos_token_id")?,
        "eos_token_id": gguf.number("tokenizer.ggml.eos_token_id")?,
        "torch_dtype": match weights {
            Weights::MlxF16 => "float16",
            Weights::MlxBf16 => "bfloat16",
            Weights::Plain => "float32",
        },
    });
    if weights != Weights::Plain {
        let mut quantization = json!({ "group_size": GROUP, "bits": 4, "mode": "affine" });
        for name in wide {
            quantization[name] = json!({ "group_size": GROUP, "bits": 8 });
        }
        config["quantization"] = quantization;
    }
    Ok(config)
}

fn tokenizer(gguf: &Gguf) -> Result<Value> {
    let list = |key: &str| gguf.fields[key].as_array().context("a list");
    let (tokens, kinds) = (list("tokenizer.ggml.tokens")?, list("tokenizer.ggml.token_type")?);
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, text)| Ok((text.as_str().context("a token")?.to_owned(), json!(id))))
        .collect::<Result<_>>()?;
    let control = json!(3);
    let special: Vec<Value> = (0..tokens.len())
        .filter(|id| kinds[*id] == control)
        .map(|id| {
            json!({ "id": id, "content": tokens[id], "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false })
        })
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let digits = json!({ "type": "Digits", "individual_digits": true });
    Ok(json!({
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [digits, byte_level] },
        "decoder": byte_level,
        "model": { "type": "BPE", "vocab": vocab, "merges": gguf.fields["tokenizer.ggml.merges"] },
    }))
}

fn tokenizer_config(gguf: &Gguf) -> Result<Value> {
    let token = |which: &str| -> Result<&Value> {
        let id = gguf.number(&format!("tokenizer.ggml.{which}_token_id"))?;
        gguf.fields["tokenizer.ggml.tokens"].get(id).context("the id is in the vocabulary")
    };
    Ok(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos")?,
        "eos_token": token("eos")?,
        "chat_template": gguf.fields["tokenizer.chat_template"],
    }))
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, value.to_string()).with_context(|| path.display().to_string())
}

pub(crate) fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
    let mut at = 0;
    for (name, tensor) in tensors {
        let end = at + tensor.bytes.len();
        let entry =
            json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(name.clone(), entry);
        at = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for tensor in tensors.values() {
        file.write_all(&tensor.bytes)?;
    }
    Ok(file.flush()?)
}

/// `config.json` of a Llama of toy size, for tests of what comes before weights.
pub fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "vocab_size": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    })
}
