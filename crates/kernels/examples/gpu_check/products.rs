//! How fast products with 4-bit weights are, ours and MLX's, on the shapes of an 8B
//! model and of a model with 128 experts.

use std::{cell::Cell, error::Error};

use kernels::{
    GatherSpec, Kernels, QmmTiling, QmvSpec, QmvWeights, gather_qmm_few, qmm_few::qmm_few_tiled,
};
use mlx::{
    Array,
    quantized::{QuantMode, Quantized, gather_qmm, quantize, quantized_matmul},
    random,
};

use crate::timing::{DTYPE, time};

/// More than the second-level cache holds, several times.
const BYTES: usize = 300 << 20;

struct Packed {
    spec: QmvSpec,
    parts: Quantized,
    biases: Array,
}

impl Packed {
    fn new(inputs: usize, outputs: usize) -> Result<Self, Box<dyn Error>> {
        let dense = random::normal(&[outputs, inputs], DTYPE, None)?;
        // So that a chain of products stays finite.
        let dense = dense.multiply(&Array::scalar(1.0 / (inputs as f32).sqrt())?)?.astype(DTYPE)?;
        let parts = quantize(&dense, 64, 4, QuantMode::Affine)?;
        let biases = parts.biases.clone().ok_or("affine weights have biases")?;
        mlx::eval(&[&parts.weight, &parts.scales, &biases])?;
        let (dtype, scale_dtype) = (DTYPE, DTYPE);
        let spec =
            QmvSpec { rows: 1, inputs, outputs, bits: 4, group_size: 64, dtype, scale_dtype };
        Ok(Self { spec, parts, biases })
    }

    fn ours(
        &self,
        kernels: &Kernels,
        x: &Array,
        tiling: Option<QmmTiling>,
    ) -> Result<Array, Box<dyn Error>> {
        let spec = QmvSpec { rows: x.dim(0), ..self.spec };
        let (w, scales, biases) = (&self.parts.weight, &self.parts.scales, &self.biases);
        let tiling = tiling.unwrap_or_else(|| QmmTiling::new(&spec));
        Ok(qmm_few_tiled(kernels, &spec, tiling, x, &QmvWeights { w, scales, biases })?)
    }

    fn theirs(&self, x: &Array) -> Result<Array, Box<dyn Error>> {
        let Quantized { weight, scales, .. } = &self.parts;
        let biases = Some(&self.biases);
        Ok(quantized_matmul(x, weight, scales, biases, true, 64, 4, QuantMode::Affine)?)
    }
}

/// Weights `[width, 4096]` and `[4096, width]`, several copies, used in turn: what a
/// step reads is not in a cache. The products of a step, and the steps, depend on
/// each other.
struct Pairs {
    width: usize,
    bytes: usize,
    pairs: Vec<[Packed; 2]>,
    next: Cell<usize>,
}

impl Pairs {
    fn new(width: usize) -> Result<Self, Box<dyn Error>> {
        let bytes = 2 * width * 4096 / 16 * 9;
        let pairs = (0..BYTES.div_ceil(bytes))
            .map(|_| Ok([Packed::new(4096, width)?, Packed::new(width, 4096)?]))
            .collect::<Result<_, Box<dyn Error>>>()?;
        Ok(Self { width, bytes, pairs, next: Cell::new(0) })
    }

    fn next(&self) -> &[Packed; 2] {
        let at = self.next.get();
        self.next.set((at + 1) % self.pairs.len());
        &self.pairs[at]
    }

    fn ours(
        &self,
        kernels: &Kernels,
        x: &Array,
        tiling: Option<QmmTiling>,
    ) -> Result<f64, Box<dyn Error>> {
        time(x, |x| {
            let [up, down] = self.next();
            down.ours(kernels, &up.ours(kernels, x, tiling)?, tiling)
        })
    }

    fn theirs(&self, x: &Array) -> Result<f64, Box<dyn Error>> {
        time(x, |x| {
            let [up, down] = self.next();
            down.theirs(&up.theirs(x)?)
        })
    }
}

const WIDTHS: [usize; 4] = [4096, 6144, 14336, 28672];

fn rows(rows: usize) -> Result<Array, Box<dyn Error>> {
    let x = random::normal(&[rows, 4096], DTYPE, None)?;
    x.eval()?;
    Ok(x)
}

/// Ours and MLX's.
pub(crate) fn products(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    for width in WIDTHS.into_iter().chain([128_256]) {
        let pairs = Pairs::new(width)?;
        for num_rows in [1, 2, 4, 8, 12, 16, 32, 64] {
            let x = rows(num_rows)?;
            let (ours, theirs) = (pairs.ours(kernels, &x, None)?, pairs.theirs(&x)?);
            let rate = |micros: f64| pairs.bytes as f64 / micros / 1e6;
            println!(
                "  {num_rows} x 4096 -> {width} -> 4096: {ours:.1} us, {:.2} TB/s; MLX \
                 {theirs:.1} us, {:.2} TB/s",
                rate(ours),
                rate(theirs)
            );
        }
    }
    Ok(())
}

/// Every tiling that may be worth it.
pub(crate) fn tilings(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    for width in WIDTHS {
        let pairs = Pairs::new(width)?;
        for num_rows in [1, 8, 16, 32, 64] {
            let x = rows(num_rows)?;
            for tiling in candidates(num_rows) {
                let QmmTiling { row_tiles, token_tiles, groups_ahead, octets_ahead, .. } = tiling;
                let name = format!("{row_tiles} {token_tiles} {groups_ahead} {octets_ahead}");
                match pairs.ours(kernels, &x, Some(tiling)) {
                    Ok(micros) => println!(
                        "  {num_rows} x 4096 -> {} -> 4096, tiling {name}: {micros:.1} us, {:.2} TB/s",
                        pairs.width,
                        pairs.bytes as f64 / micros / 1e6
                    ),
                    Err(error) => println!("  {num_rows} rows, tiling {name}: {error}"),
                }
            }
        }
    }
    Ok(())
}

fn candidates(num_rows: usize) -> Vec<QmmTiling> {
    let whole = num_rows.div_ceil(8);
    let mut found = Vec::new();
    for row_tiles in [1, 2, 4] {
        for token_tiles in [1, 2, 4, 8] {
            for (groups_ahead, octets_ahead) in [(1, 2), (2, 2), (2, 4), (4, 2), (4, 4), (4, 8)] {
                // What stays in registers.
                let registers = token_tiles * octets_ahead * 4
                    + row_tiles * (token_tiles * 8 + groups_ahead * 4);
                if token_tiles <= whole && token_tiles * 2 >= whole && registers <= 150 {
                    found.push(QmmTiling {
                        row_tiles,
                        token_tiles,
                        groups_ahead,
                        octets_ahead,
                        simdgroups: 8,
                    });
                }
            }
        }
    }
    found
}

/// Layers of experts: 128 of `[1536, 2048]` and of `[2048, 768]`, eight for a token.
/// All of them together are more than the second-level cache holds.
struct Experts {
    up: Packed,
    down: Packed,
}

type ProductOf<'a> = dyn Fn(&Packed, &Array) -> Result<Array, Box<dyn Error>> + 'a;

const NUM_EXPERTS: usize = 128;
const TOP_K: usize = 8;

impl Experts {
    fn new() -> Result<Self, Box<dyn Error>> {
        let stacked = |inputs, outputs| {
            let mut packed = Packed::new(inputs, NUM_EXPERTS * outputs)?;
            packed.spec.outputs = outputs;
            for array in [&mut packed.parts.weight, &mut packed.parts.scales, &mut packed.biases] {
                let columns = array.dim(1);
                *array = array.reshape(&[NUM_EXPERTS, outputs, columns])?;
                array.eval()?;
            }
            Ok::<_, Box<dyn Error>>(packed)
        };
        Ok(Self { up: stacked(2048, 1536)?, down: stacked(768, 2048)? })
    }

    /// From `[rows, inputs]` to `[rows * slots_per_row, outputs]`.
    fn ours(
        kernels: &Kernels,
        packed: &Packed,
        x: &Array,
        experts: &Array,
    ) -> Result<Array, Box<dyn Error>> {
        let rows = x.dim(0);
        let spec = GatherSpec {
            product: QmvSpec { rows, ..packed.spec },
            num_experts: NUM_EXPERTS,
            slots_per_row: experts.size() / rows,
        };
        let (w, scales, biases) = (&packed.parts.weight, &packed.parts.scales, &packed.biases);
        Ok(gather_qmm_few(kernels, &spec, x, &QmvWeights { w, scales, biases }, experts)?)
    }

    /// The same.
    fn theirs(packed: &Packed, x: &Array, experts: &Array) -> Result<Array, Box<dyn Error>> {
        let (rows, slots) = (x.dim(0), experts.size());
        let x = x.reshape(&[rows, 1, 1, x.dim(1)])?;
        let experts = experts.reshape(&[rows, slots / rows])?;
        let Quantized { weight, scales, .. } = &packed.parts;
        let out = gather_qmm(
            &x,
            weight,
            scales,
            Some(&packed.biases),
            None,
            Some(&experts),
            true,
            64,
            4,
            QuantMode::Affine,
            false,
        )?;
        Ok(out.reshape(&[slots, packed.spec.outputs])?)
    }
}

/// The first rows and columns.
fn first(x: &Array, shape: [usize; 2]) -> Result<Array, Box<dyn Error>> {
    let stop = [i32::try_from(shape[0])?, i32::try_from(shape[1])?];
    Ok(x.slice(&[0, 0], &stop, &[1, 1])?)
}

/// Products by experts: up, half of it, down, the first slot of each token.
pub(crate) fn experts(kernels: &Kernels) -> Result<(), Box<dyn Error>> {
    let layer = Experts::new()?;
    for rows in [1, 2, 4, 8, 16, 32] {
        let picks: Vec<u32> = (0..rows * TOP_K)
            .map(|slot| u32::try_from(slot * 2_654_435_761 / 64 % NUM_EXPERTS))
            .collect::<Result<_, _>>()?;
        let slots = picks.len();
        let picks = Array::from_slice(&picks, &[slots])?;
        let x = random::normal(&[rows, 2048], DTYPE, None)?;
        mlx::eval(&[&picks, &x])?;
        let step = |product: &ProductOf<'_>| {
            time(&x, |x| {
                let up = first(&product(&layer.up, x)?, [slots, 768])?;
                let down = product(&layer.down, &up)?;
                first(&down, [rows, 2048])
            })
        };
        let ours = step(&|packed, x| Experts::ours(kernels, packed, x, &picks))?;
        let theirs = step(&|packed, x| Experts::theirs(packed, x, &picks))?;
        println!("  {rows} tokens, {TOP_K} experts each: {ours:.1} us; MLX {theirs:.1} us");
    }
    Ok(())
}
