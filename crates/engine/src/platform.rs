//! The device: which one, how much memory, and what runs best on it.
//!
//! One table, [`PLATFORMS`], holds every decision that depends on the device;
//! nothing else in the engine asks "is this a GPU?". MLX picks its backend when
//! the library is loaded, so a platform is available or not at run time and the
//! program is the same.
//!
//! Upstream: `sglang/srt/configs/device_config.py`.

use std::{collections::BTreeMap, fs, process::Command};

use mlx::{Dtype, device::DeviceKind};
use nn::Unpack;
use scheduler::PrefillSharing;

use crate::{DeviceChoice, DtypeChoice, EngineError, Overlap};

/// What the engine knows about a kind of device.
#[derive(Debug)]
pub struct PlatformEntry {
    /// Name for `--device`.
    pub name: &'static str,
    /// Which of MLX's devices it is.
    pub kind: DeviceKind,
    /// `--device mlx` takes the available platform with the highest rank.
    pub rank: u8,
    /// True if MLX can run on it here.
    pub available: fn() -> bool,
    /// Computes in this dtype whatever the model was trained in.
    pub fixed_dtype: Option<Dtype>,
    /// Packed matrices that are unpacked on load: on the CPU those that only
    /// MLX's own product, a scalar loop, could multiply.
    pub unpack: Unpack,
    /// Products of many rows unpack their matrix first; see `nn::quant::MARK_BYTES`
    /// for how much of it there is at a time.
    pub unpacks_for_prompts: bool,
    /// Attention never holds a whole matrix of scores.
    pub fused_attention: bool,
    /// For `--attention-backend mlx`, if it knows the model and the GPU runs it;
    /// otherwise `sdpa`.
    pub attention_backend: &'static str,
    /// For graph runner `auto`.
    pub graph_runner: &'static str,
    /// Rows that decode steps are padded to, where the attention backend can;
    /// multiples of eight beyond.
    pub row_buckets: &'static [usize],
    /// Whether launching a step before the one before it is read gains
    /// anything. Not where handing a step over already runs most of it.
    pub overlap: bool,
    /// Default share of memory for weights and pool.
    pub mem_fraction_static: f64,
    /// Default K/V pool, in full contexts; `None`: as memory allows.
    pub max_contexts: Option<usize>,
    /// Default and limit of requests in a decode batch.
    pub max_running_requests: usize,
    /// Default tokens of a prefill step; `None`: by memory, as upstream.
    pub chunked_prefill_size: Option<usize>,
    /// How a long prompt shares the device with running requests. Streams stall for a
    /// piece, which `pace` makes up for with decode steps; a piece too short costs more
    /// than its tokens are worth. A prompt in one piece stalls streams once, for some
    /// tenths of a second.
    pub prefill_sharing: PrefillSharing,
}

/// Sorted by name.
///
/// The CPU shares its memory with everything else on the machine, so its pool
/// stays modest unless asked for; a chunk of 512 keeps a step of a 1B model
/// near a second and already fills the cores.
pub const PLATFORMS: &[PlatformEntry] = &[
    PlatformEntry {
        name: "cpu",
        kind: DeviceKind::Cpu,
        rank: 0,
        available: || true,
        fixed_dtype: Some(Dtype::Float32),
        unpack: Unpack::WithoutKernel,
        unpacks_for_prompts: false,
        fused_attention: true,
        attention_backend: "paged",
        graph_runner: "compiled",
        row_buckets: &[],
        overlap: false,
        mem_fraction_static: 0.7,
        max_contexts: Some(8),
        max_running_requests: 64,
        chunked_prefill_size: Some(512),
        prefill_sharing: PrefillSharing { above: 256, chunk: 16 },
    },
    PlatformEntry {
        name: "cuda",
        kind: DeviceKind::Gpu,
        rank: 1,
        available: mlx::device::cuda_available,
        fixed_dtype: None,
        unpack: Unpack::Never,
        unpacks_for_prompts: true,
        fused_attention: true,
        attention_backend: "paged",
        graph_runner: "compiled",
        // The product's kernel takes rows of eight at a time.
        row_buckets: &[1, 8, 16, 24, 32, 40, 48, 56, 64],
        overlap: true,
        mem_fraction_static: 0.85,
        max_contexts: None,
        max_running_requests: 256,
        chunked_prefill_size: None,
        // Unpacking the weights takes 16 ms of an 8B model's piece, a token 0.02 ms.
        prefill_sharing: PrefillSharing { above: 4096, chunk: 512 },
    },
    PlatformEntry {
        name: "metal",
        kind: DeviceKind::Gpu,
        rank: 2,
        available: mlx::device::metal_available,
        fixed_dtype: None,
        unpack: Unpack::Never,
        unpacks_for_prompts: false,
        fused_attention: true,
        attention_backend: "paged",
        graph_runner: "eager",
        row_buckets: &[1, 2, 4, 8],
        overlap: true,
        mem_fraction_static: 0.8,
        max_contexts: None,
        max_running_requests: 128,
        chunked_prefill_size: None,
        prefill_sharing: PrefillSharing { above: 1024, chunk: 64 },
    },
];

/// The device that was chosen, as found on this machine.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Its row of the table.
    pub entry: &'static PlatformEntry,
    /// For people: `cpu`, `Apple M3 Max`, `NVIDIA H100 80GB HBM3`.
    pub device_name: String,
    /// Bytes this process may use on it.
    pub memory_bytes: usize,
    /// Largest single buffer, if the device has a limit.
    pub max_buffer_bytes: Option<usize>,
}

impl Platform {
    /// Finds the device and makes it MLX's default for the calling thread.
    ///
    /// # Errors
    /// A device that MLX does not have here.
    pub fn select(choice: DeviceChoice) -> Result<Self, EngineError> {
        let entry = choose(choice, |entry| (entry.available)())?;
        mlx::device::set_default(entry.kind)?;
        let info = match entry.kind {
            DeviceKind::Cpu => BTreeMap::new(),
            DeviceKind::Gpu => mlx::device::device_info(),
        };
        let device_name = info
            .get("device_name")
            .filter(|name| !name.is_empty())
            .cloned()
            .unwrap_or_else(|| entry.name.to_owned());
        let memory_bytes = gpu_memory(&info).or_else(host_memory).unwrap_or(FALLBACK_MEMORY);
        let max_buffer_bytes = info.get("max_buffer_length").and_then(|bytes| bytes.parse().ok());
        Ok(Self { entry, device_name, memory_bytes, max_buffer_bytes })
    }

    /// Whether steps overlap.
    pub fn overlap(&self, option: Overlap) -> bool {
        match option {
            Overlap::Auto => self.entry.overlap,
            Overlap::On => true,
            Overlap::Off => false,
        }
    }

    /// What to compute in, given what the model's config names (`torch_dtype`).
    pub fn dtype(&self, choice: DtypeChoice, model_dtype: Option<Dtype>) -> Dtype {
        match (choice, self.entry.fixed_dtype, model_dtype) {
            (DtypeChoice::Fixed(dtype), _, _) | (DtypeChoice::Auto, Some(dtype), _) => dtype,
            // As upstream: a model published in f32 is served in f16.
            (_, None, Some(Dtype::Float16 | Dtype::Float32)) => Dtype::Float16,
            (_, None, _) => Dtype::Bfloat16,
        }
    }

    /// `--chunked-prefill-size` by memory, unless the platform has its own.
    pub fn chunked_prefill_size(&self) -> usize {
        const GIB: usize = 1 << 30;
        self.entry.chunked_prefill_size.unwrap_or(match self.memory_bytes / GIB {
            0..20 => 2048,
            20..60 => 4096,
            60..160 => 8192,
            _ => 16384,
        })
    }
}

/// Used if neither the device nor the system says how much memory there is.
const FALLBACK_MEMORY: usize = 4 << 30;

fn choose(
    choice: DeviceChoice,
    available: impl Fn(&PlatformEntry) -> bool,
) -> Result<&'static PlatformEntry, EngineError> {
    let name = choice.to_string();
    let found = match choice {
        DeviceChoice::Mlx => {
            PLATFORMS.iter().filter(|entry| available(entry)).max_by_key(|entry| entry.rank)
        }
        _ => PLATFORMS.iter().find(|entry| entry.name == name && available(entry)),
    };
    found.ok_or_else(|| EngineError::NoDevice {
        device: name,
        available: PLATFORMS
            .iter()
            .filter(|entry| available(entry))
            .map(|entry| entry.name)
            .collect(),
    })
}

/// What may be used of a GPU. Metal names the working set it keeps resident,
/// CUDA what is free now; the total is the last resort.
fn gpu_memory(info: &BTreeMap<String, String>) -> Option<usize> {
    ["max_recommended_working_set_size", "free_memory", "memory_size", "total_memory"]
        .iter()
        .find_map(|key| info.get(*key)?.parse().ok())
        .filter(|&bytes| bytes > 0)
}

/// What the operating system can still give this process.
pub fn host_memory() -> Option<usize> {
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| meminfo_bytes(&text, "MemAvailable"))
        .or_else(macos_memory)?;
    Some(cgroup_room().map_or(available, |room| room.min(available)))
}

fn meminfo_bytes(text: &str, key: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A container's limit (cgroup v2) less what it uses.
fn cgroup_room() -> Option<usize> {
    let read = |name| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let limit: usize = read("memory.max")?.trim().parse().ok()?;
    let used: usize = read("memory.current")?.trim().parse().ok()?;
    Some(limit.saturating_sub(used))
}

fn macos_memory() -> Option<usize> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(name: &str, memory_bytes: usize) -> Platform {
        let entry = PLATFORMS.iter().find(|entry| entry.name == name).unwrap();
        Platform { entry, device_name: name.to_owned(), memory_bytes, max_buffer_bytes: None }
    }

    #[test]
    fn table_is_sorted_and_unique() {
        assert!(PLATFORMS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(PLATFORMS.windows(2).all(|pair| pair[0].rank != pair[1].rank));
    }

    #[test]
    fn best_device_wins_and_a_missing_one_is_named() {
        assert_eq!(choose(DeviceChoice::Mlx, |_| true).unwrap().name, "metal");
        let no_metal = |entry: &PlatformEntry| entry.name != "metal";
        assert_eq!(choose(DeviceChoice::Mlx, no_metal).unwrap().name, "cuda");
        assert_eq!(
            choose(DeviceChoice::Metal, no_metal).unwrap_err().to_string(),
            "device `metal` is not available here (available: cpu, cuda)"
        );
    }

    #[test]
    fn dtype_follows_option_then_device_then_model() {
        let (cpu, cuda) = (platform("cpu", 1), platform("cuda", 1));
        let auto = DtypeChoice::Auto;
        assert_eq!(cpu.dtype(auto, Some(Dtype::Bfloat16)), Dtype::Float32);
        assert_eq!(cpu.dtype(DtypeChoice::Fixed(Dtype::Float16), None), Dtype::Float16);
        assert_eq!(cuda.dtype(auto, Some(Dtype::Bfloat16)), Dtype::Bfloat16);
        assert_eq!(cuda.dtype(auto, Some(Dtype::Float32)), Dtype::Float16);
        assert_eq!(cuda.dtype(auto, None), Dtype::Bfloat16);
    }

    #[test]
    fn chunk_grows_with_memory() {
        let sizes: Vec<_> = [16, 48, 80, 192]
            .map(|gib| platform("cuda", gib << 30).chunked_prefill_size())
            .to_vec();
        assert_eq!(sizes, [2048, 4096, 8192, 16384]);
        assert_eq!(platform("cpu", 192 << 30).chunked_prefill_size(), 512);
    }

    #[test]
    fn memory_is_read_from_what_the_system_says() {
        let text = "MemTotal:       100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(42 * 1024));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
        let info = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!(gpu_memory(&info(&[("memory_size", "64")])), Some(64));
        let metal = info(&[("memory_size", "64"), ("max_recommended_working_set_size", "48")]);
        assert_eq!(gpu_memory(&metal), Some(48));
        assert_eq!(gpu_memory(&info(&[])), None);
        assert!(host_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
