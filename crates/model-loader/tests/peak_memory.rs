//! Loading never holds more than the weights and one piece of a tensor. Alone
//! in its process, because MLX counts memory for the whole of it.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    rc::Rc,
};

use mlx::{Dtype, memory, quantized::QuantMode};
use model_loader::{LoaderOptions, ModelSource, Quiet, load};
use nn::{LoadOptions, QuantChoice, QuantSpec, QuantizeOnLoad, Unpack};

const MIB: usize = 1 << 20;
const SHARDS: usize = 3;
const TENSORS: usize = 4;
/// bf16 elements of a small tensor: 4 MiB stored, 8 MiB as f32.
const SMALL: [usize; 2] = [1024, 2048];
/// f32 elements of the large one: 192 MiB, three pieces.
const LARGE: [usize; 2] = [3 * 8192, 2048];

fn write_shard(path: &Path, tensors: &[(String, &str, [usize; 2])]) -> io::Result<()> {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, dtype, shape) in tensors {
        let bytes = shape.iter().product::<usize>() * if *dtype == "BF16" { 2 } else { 4 };
        let entry =
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]});
        header.insert(name.clone(), entry);
        at += bytes;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = fs::File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let chunk: Vec<u8> = (0..MIB / 4).flat_map(|i| (i as f32).to_le_bytes()).collect();
    for _ in 0..at / MIB {
        file.write_all(&chunk)?;
    }
    Ok(())
}

/// Most resident memory of the process so far, where the system tells.
fn resident_peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

#[test]
fn stays_below_the_weights_and_a_piece() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    for shard in 0..SHARDS {
        let tensors: Vec<_> =
            (0..TENSORS).map(|i| (format!("w{shard}.{i}.weight"), "BF16", SMALL)).collect();
        write_shard(&folder.path().join(format!("model-{shard}.safetensors")), &tensors).unwrap();
    }
    let large = [("large.weight".to_owned(), "F32", LARGE)];
    write_shard(&folder.path().join("model-9.safetensors"), &large).unwrap();

    let options = LoadOptions { compute_dtype: Dtype::Float32, unpack: Unpack::Never };
    let source = ModelSource::Folder(folder.path().to_owned());
    let resident_before = resident_peak();
    memory::reset_peak();
    let model = load(&source, &LoaderOptions::new(options), &Quiet).unwrap();
    assert_eq!(memory::peak_bytes(), 0, "opening reads no weight");
    let mut weights = Vec::new();
    for (shard, i) in (0..SHARDS).flat_map(|shard| (0..TENSORS).map(move |i| (shard, i))) {
        weights.push(model.weights.take(&format!("w{shard}.{i}.weight"), &SMALL).unwrap());
    }
    let small_bytes = SHARDS * TENSORS * 8 * MIB;
    let peak = memory::peak_bytes();
    assert!(peak <= small_bytes + 5 * MIB, "{} MiB", peak / MIB);

    weights.push(model.weights.take("large.weight", &LARGE).unwrap());
    let all_bytes = small_bytes + 192 * MIB;
    let peak = memory::peak_bytes();
    assert!((all_bytes..=all_bytes + 65 * MIB).contains(&peak), "{} MiB", peak / MIB);
    assert!(memory::active_bytes() <= all_bytes + MIB);
    if let (Some(before), Some(after)) = (resident_before, resident_peak()) {
        // A piece on each side of the upload, and what the allocator keeps.
        let grown = after - before;
        assert!(grown <= all_bytes + 200 * MIB, "{} MiB", grown / MIB);
    }
    let last = weights.last().unwrap();
    let tail =
        last.slice(&[24575, 2040], &[24576, 2048], &[1, 1]).unwrap().to_vec::<f32>().unwrap();
    let expected: Vec<f32> = (262_136..262_144).map(|i| i as f32).collect();
    assert_eq!(tail, expected);
    model.weights.finish(&[]).unwrap();
    drop(weights);
    packing_holds_one_matrix_unpacked(&source);
}

/// Packing on load (`--quantization`): what is packed so far, and one matrix as stored.
#[expect(clippy::unwrap_used, reason = "a part of the test above")]
fn packing_holds_one_matrix_unpacked(source: &ModelSource) {
    let options = LoadOptions { compute_dtype: Dtype::Bfloat16, unpack: Unpack::Never };
    let model = load(source, &LoaderOptions::new(options), &Quiet).unwrap();
    model.weights.quantize_on_load(QuantizeOnLoad {
        spec: QuantSpec::of_mode(QuantMode::Affine),
        dtype: None,
        choose: Rc::new(|_| QuantChoice::Default),
    });
    memory::clear_cache();
    memory::reset_peak();
    let before = memory::active_bytes();
    let mut packed = Vec::new();
    for (shard, i) in (0..SHARDS).flat_map(|shard| (0..TENSORS).map(move |i| (shard, i))) {
        let weights = model.weights.at(&format!("w{shard}.{i}"));
        packed.push(weights.linear_parts(SMALL[1], SMALL[0]).unwrap());
    }
    // Half a byte for each element, and 2 bf16 for each 64.
    let packed_bytes = SHARDS * TENSORS * (SMALL[0] * SMALL[1] / 2 + SMALL[0] * SMALL[1] / 64 * 4);
    let (peak, active) = (memory::peak_bytes() - before, memory::active_bytes() - before);
    assert!((packed_bytes..=packed_bytes + MIB).contains(&active), "{active} for {packed_bytes}");
    let stored = SMALL[0] * SMALL[1] * 2;
    assert!(peak <= packed_bytes + stored + MIB, "{} KiB", peak / 1024);
}
